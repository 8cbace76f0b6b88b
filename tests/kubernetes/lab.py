"""The cluster with what the scenarios share: pods that talk, the chart, the receiver's files."""
import json, os, pathlib, shutil, subprocess, time

import pods, records
from cluster import STACK, Cluster
from chart import CHART

FLOWTEL = pathlib.Path(os.environ.get("FLOWTEL", STACK.parent / "debug/flowtel")).resolve()
VERSIONS = [f"v{n}" for n in range(1, 8)]
ALL, SIDECAR = "http://10.99.0.1:14318", "http://10.99.0.1:14319"


class Lab:
    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.values = {"image.repository": "img.local/flowtel", "image.tag": "v1", "image.pullPolicy": "Never", "clusterName": "test",
                       "receiver.endpoint": ALL}
        # The node is a part of a machine: what others do there is none of the tests'.
        (cluster.state / "values.yaml").write_text("config: 'capture.filter = [\"include address=10.0.0.0/8\"]'\n")

    def prepare(self):
        """Images, names, the receiver, and a pod of each class of service that serves ports 8080 to 8083."""
        c = self.cluster
        shutil.copytree(CHART, c.state / "chart")
        c.image("img.local/talker:1", "/talker", STACK / "kubernetes/talker")
        c.image("img.local/coredns:1", "/coredns", (STACK / "coredns").resolve())
        c.image("img.local/gateway:v1", "/gateway", (STACK / "gateway").resolve())
        # The same program by several names: an upgrade wants another image.
        c.image(f"img.local/flowtel:{VERSIONS[0]}", "/flowtel", FLOWTEL)
        for version in VERSIONS[1:]: c.inside("ctr", "-n", "k8s.io", "images", "tag", "img.local/flowtel:v1", f"img.local/flowtel:{version}")
        shutil.copy2((STACK / "otelcol").resolve(), c.state / "bin/sink")
        (c.state / "sink.yaml").write_text(pods.SINK.replace("STATE", str(c.state)))
        c.daemon("sink", [c.bin("sink"), "--config", c.state / "sink.yaml"])
        c.apply(pods.COREDNS)
        for name in pods.RESOURCES: c.apply(pods.fill(pods.TALKER, name, "default", pods.RESOURCES[name]))
        c.apply(pods.fill(pods.SERVICE, "guaranteed", "default"))
        c.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
        c.say("pods that talk, CoreDNS")
        self.pods = {name: Pod(self, name) for name in pods.RESOURCES}
        for name, pod in self.pods.items():
            assert pod.of_api["status"]["qosClass"].lower() == name, pod.of_api["status"]

    # === flowtel

    def helm(self, **changes):
        """Installs or upgrades the chart as release `flowtel`, and waits for the DaemonSet. The last values hold on."""
        self.values |= changes
        self.release("upgrade", "--install", "flowtel", "--namespace", "flowtel", "--create-namespace")
        self.rolled_out()

    def installed(self):
        """Installs the chart where no scenario did: one may run alone."""
        if not self.cluster.helm("list", "--namespace", "flowtel", "--short").stdout.strip(): self.helm()

    def release(self, *words, **changes):
        """helm with the chart and the values."""
        given = [word for key, v in (self.values | changes).items() for word in ("--set", f"{key}={v}")]
        return self.cluster.helm(*words, self.cluster.state / "chart", "--values", self.cluster.state / "values.yaml", *given)

    def rolled_out(self):
        self.cluster.kubectl("-n", "flowtel", "rollout", "status", "daemonset/flowtel", "--timeout=90s")

    def agent(self):
        """The agent's only pod, as the API has it."""
        items = self.cluster.get("-n", "flowtel", "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        items = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        assert len(items) == 1, [item["metadata"]["name"] for item in items]
        return items[0]

    def agent_process(self):
        """The process id of flowtel in the agent's pod, in the host's numbers."""
        container = self.agent()["status"]["containerStatuses"][0]["containerID"].split("//")[1]
        info = json.loads(self.cluster.inside("ctr", "-n", "k8s.io", "tasks", "ls").stdout and
                          json.dumps([line.split() for line in self.cluster.inside("ctr", "-n", "k8s.io", "tasks", "ls").stdout.splitlines()]))
        return next(int(words[1]) for words in info if words[0] == container)

    # === talk

    def dial(self, pod, count, *addresses, namespace="default"):
        """Connections from a pod, as (from, to), and failures as (None, to)."""
        out = self.cluster.kubectl("-n", namespace, "exec", pod, "-c", "talker", "--", "/talker", "dial", str(count), *addresses).stdout
        return parse(out)

    def records(self, enough=lambda _: True, **how): return records.settled(self.cluster.state / "all.jsonl", enough, **how)

    def load(self, pod, per_second, *addresses): return Load(self, pod, per_second, addresses)


class Pod:
    def __init__(self, lab, name, namespace="default"):
        self.of_api = lab.cluster.get("-n", namespace, "pod", name)
        self.name, self.ip, self.uid = name, self.of_api["status"]["podIP"], self.of_api["metadata"]["uid"]
        self.container = next(s["containerID"].split("//")[1] for s in self.of_api["status"]["containerStatuses"] if s["name"] == "talker")


class Load:
    """Connections from a pod, so many a second, until it is left; `made` has them then."""
    def __init__(self, lab, pod, per_second, addresses):
        self.before = {record["log.record.uid"] for record in lab.records()}
        self.out = open(lab.cluster.state / "load.out", "w+")
        # Not by kubectl: that goes through the kubelet, which one of the scenarios restarts.
        self.child = lab.cluster.spawn("load", ["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", f"load-{time.monotonic_ns()}",
                                                lab.pods[pod].container, "/talker", "load", per_second, *addresses],
                                       stdin=subprocess.PIPE, stdout=self.out)

    def __enter__(self):
        time.sleep(2)
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        code = self.child.wait(60)
        self.out.seek(0)
        self.made = parse(self.out.read())
        assert code == 0, f"the load ended with {code}"


def parse(out):
    made = []
    for line in out.splitlines():
        words = line.split()
        assert words[-1] != "broken" and "other:" not in words, line
        made.append((None, words[1]) if words[0] == "failed" else (words[0], words[1]))
    return made
