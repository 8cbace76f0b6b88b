"""The gateway's names of pods and workloads, of both ends, against the API server; what it doesn't know; what it costs."""
import time

import pods, records


def prefixed(record, side): return {key.removeprefix(f"{side}."): v for key, v in record.items() if key.startswith(f"{side}.k8s.")}


def gateway(lab, **changes):
    exporter = {"gateway.enabled": "true", "gateway.image.repository": "img.local/gateway", "gateway.image.tag": "v1", "gateway.image.pullPolicy": "Never",
                "gateway.exporters.debug": "null", "gateway.exporters.otlphttp.endpoint": "http://10.99.0.1:14318", "gateway.queued[0]": "otlphttp",
                "receiver.endpoint": ""}
    lab.helm(**exporter | changes)
    lab.cluster.kubectl("-n", "flowtel", "rollout", "status", "statefulset/flowtel-gateway", "--timeout=90s")


def volume(lab):
    """What a provisioner would make."""
    place = lab.cluster.state / "volume"
    place.mkdir()
    place.chmod(0o777)
    lab.cluster.apply(f"""apiVersion: v1
kind: PersistentVolume
metadata: {{name: gateway}}
spec: {{capacity: {{storage: 2Gi}}, accessModes: [ReadWriteOnce], hostPath: {{path: {place}}}, persistentVolumeReclaimPolicy: Retain}}
""")


def settled(lab, made, expected):
    ends = {(source, to) for source, to in made if source}
    own = lambda record: records.ends(record) in ends
    found = lab.records(lambda all: sum(records.tally(all, own).values()) >= expected)
    mine = [r for r in found if "destination.address" in r and own(r)]
    assert len(mine) == expected, f"{len(mine)} records, wanted {expected}"
    return mine


def both_ends(lab):
    c = lab.cluster
    volume(lab)
    gateway(lab)
    assert list((c.state / "volume").iterdir()), "the gateway keeps nothing in its volume"
    c.apply(pods.fill(pods.DEPLOYMENT, "web", "default"))
    c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    web = c.get("pods", "-l", "app=web")["items"][0]
    time.sleep(3)  # until the gateway's watch has it
    client = lab.pods["burstable"]
    near = {"k8s.namespace.name": "default", "k8s.pod.name": client.name}
    far = {"k8s.namespace.name": "default", "k8s.pod.name": web["metadata"]["name"], "k8s.deployment.name": "web"}
    for record in settled(lab, lab.dial(client.name, 5, f"{web['status']['podIP']}:8080"), 20):
        assert prefixed(record, "source") == near, record
        assert prefixed(record, "destination") == far, record
        outgoing = record["flowtel.flow.direction"] == "outgoing"
        assert record["k8s.pod.uid"] == (client.uid if outgoing else web["metadata"]["uid"]), record
        assert {k for k in record["resource"] if k.startswith("k8s.")} == {"k8s.node.name", "k8s.cluster.name"}, record["resource"]
        assert "k8s.pod.ip" not in record, record


def unknown_ends(lab):
    """A Service's address and a node's are no pod's: the record has no names for them, and not those of some pod of that node."""
    c, client = lab.cluster, lab.pods["burstable"]
    c.daemon("host-talker", [c.bin("talker"), "serve", "7080"])
    service = c.get("service", "guaranteed")["spec"]["clusterIP"]
    made = lab.dial(client.name, 3, "10.99.0.1:7080")
    for record in settled(lab, made, 12):
        assert prefixed(record, "source")["k8s.pod.name"] == client.name, record
        assert not prefixed(record, "destination"), record
    made = lab.dial(client.name, 3, f"{service}:80")
    for record in settled(lab, made, 6): assert not prefixed(record, "destination"), record


def static_pod(lab):
    """The kubelet makes its uid, and the API knows it by another one."""
    c = lab.cluster
    (c.state / "static/still.yaml").write_text(pods.fill(pods.TALKER, "still", "default"))
    c.until("the static pod", lambda: c.kubectl("wait", "--for=condition=Ready", "pod/still-node1", "--timeout=1s", check=False).returncode == 0, 60)
    pod = c.get("pod", "still-node1")
    time.sleep(3)
    for record in settled(lab, lab.dial("still-node1", 3, f"{lab.pods['guaranteed'].ip}:8080"), 12):
        if record["flowtel.flow.direction"] == "outgoing":
            assert record["k8s.pod.uid"] == pod["metadata"]["annotations"]["kubernetes.io/config.hash"] != pod["metadata"]["uid"], record
            assert not prefixed(record, "source"), record
        else: assert prefixed(record, "source")["k8s.pod.name"] == "still-node1", record
        assert prefixed(record, "destination")["k8s.pod.name"] == "guaranteed", record
    (c.state / "static/still.yaml").unlink()


def cost(lab):
    """CPU time of the gateway a record: without names, with those of the own pod, with those of both ends."""
    c = lab.cluster
    def spent():
        uid = c.get("-n", "flowtel", "pod", "flowtel-gateway-0")["metadata"]["uid"]
        for path in (f"/sys/fs/cgroup/cpuacct/kubepods/burstable/pod{uid}/cpuacct.usage", f"/sys/fs/cgroup/cpu,cpuacct/kubepods/burstable/pod{uid}/cpuacct.usage"):
            try: return int(open(path).read()) / 1e3
            except OSError: pass
        text = open(f"/sys/fs/cgroup/kubepods/burstable/pod{uid}/cpu.stat").read()
        return int(text.split()[1])
    figures = {}
    for what, names, far in (("none", "false", "false"), ("own pod", "true", "false"), ("both ends", "true", "true")):
        gateway(lab, **{"gateway.kubernetes.enabled": names, "gateway.kubernetes.farEnd": far})
        time.sleep(5)
        before, already = spent(), len(lab.records())
        with lab.load("besteffort", 200, f"{lab.pods['guaranteed'].ip}:8080", f"{lab.pods['guaranteed'].ip}:8081"): time.sleep(20)
        after = len(lab.records())
        figures[what] = (spent() - before) / (after - already)
        c.say(f"gateway, names: {what}: {figures[what]:.1f} us of CPU a record ({after - already} records)")
    assert all(figure > 0 for figure in figures.values()), figures


ALL = [
    ("names of both ends by the gateway are the API's, on the record, and the resource stays the agent's", both_ends),
    ("a Service's address and a node's get no names", unknown_ends),
    ("a static pod has the uid of its cgroup: no names as the near end, the mirror's as the far one", static_pod),
    ("what names cost the gateway", cost),
]
