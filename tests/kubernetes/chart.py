"""The chart without a cluster: helm lint, what its schema refuses, and the plain manifests that are rendered from it.

    chart.py            checks
    chart.py --write    writes deploy/kubernetes/*.yaml anew"""
import json, os, pathlib, re, subprocess, sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
from stand import STACK, Checks

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/flowtel"
HELM = STACK / "helm"

ENDPOINT = ["--set", "receiver.endpoint=http://collector.observability.svc:4318"]
# file: what it is for, values
PLAIN = {
    "agent.yaml": ("A flowtel on each node. The Secret has the receiver's address.", ENDPOINT),
    "gateway.yaml": ("The agents, and a collector that adds names. Its ConfigMap says where it sends to.", ["--set", "gateway.enabled=true"]),
    "sidecar.yaml": ("What a flowtel within a pod needs; the ConfigMap has the patch for a Deployment.",
                     ["--set", "agent.enabled=false,sidecar.enabled=true", *ENDPOINT]),
}
EVERYTHING = ["--set", "gateway.enabled=true,sidecar.enabled=true,metrics.enabled=true,metrics.podMonitor.enabled=true,clusterName=c1,"
              "rights.openConnections=true,receiver.protocol=grpc,receiver.headers.authorization=x,gateway.networkPolicy.from[0].ipBlock.cidr=10.0.0.0/8,"
              "gateway.queued[0]=otlphttp,gateway.exporters.otlphttp.endpoint=http://h:4318,appArmorProfile.type=Unconfined"]
REFUSED = {
    "clusterName=a b": "clusterName", "agent.terminationGracePeriodSeconds=5": "terminationGracePeriodSeconds",
    "receiver.endpoint=collector": "endpoint", "agent.hostPid=true": "hostPid", "rights.more[0]=ALL": "more",
    "agent.rings.flows=many": "flows", "metrics.podMonitor.enabled=true": "metrics.enabled",
}


def helm(*words):
    done = subprocess.run([HELM, *words], capture_output=True, text=True, env=os.environ | {"KUBECONFIG": "/dev/null"})
    return done.returncode, done.stdout + done.stderr


def must(*words):
    code, text = helm(*words)
    assert code == 0, text
    return text


def render(values):
    return must("template", "flowtel", CHART, "--namespace", "flowtel", *values)


def plain(name):
    what, values = PLAIN[name]
    words = " ".join(w for w in values)
    return f"# {what}\n# Rendered: helm template flowtel deploy/helm/flowtel --namespace flowtel {words}\n# (make docs-kubernetes writes it anew)\n" + render(values)


def checks(all):
    all.check("helm lint, with defaults and with everything on", lambda: [must("lint", "--strict", CHART, *values) for values in ([], EVERYTHING)])
    def refuses():
        for setting, names in REFUSED.items():
            code, text = helm("template", "x", CHART, "--set", setting)
            assert code and names in text, f"{setting}: {text[-300:]}"
    all.check("values that can't work are refused by name", refuses)
    def current():
        for name in PLAIN:
            assert (ROOT / "deploy/kubernetes" / name).read_text() == plain(name), f"{name} is out of date: make docs-kubernetes"
    all.check("the plain manifests are what the chart renders", current)
    def rights():
        text = render(ENDPOINT)
        assert "privileged: false" in text and "drop: [ALL]" in text and "automountServiceAccountToken: false" in text, text
        # The column "docker, Kubernetes" of the table of rights.
        rows = [line.split("|") for line in (ROOT / "docs/operations.md").read_text().splitlines() if line.startswith("| CAP_")]
        wanted = {row[1].strip().removeprefix("CAP_") for row in rows if row[4].strip() == "yes"}
        added = json.loads(re.search(r"add: (\[.*\])", text).group(1))
        assert len(rows) > 5 and set(added) == wanted and len(added) == len(wanted), f"the chart adds {added}, the table says {sorted(wanted)}"
        assert "ClusterRole" not in text, "the agent has rights at the API"
    all.check("the agent is not privileged, has the capabilities of docs/operations.md, and no rights at the API", rights)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        (ROOT / "deploy/kubernetes").mkdir(exist_ok=True)
        for name in PLAIN: (ROOT / "deploy/kubernetes" / name).write_text(plain(name))
        sys.exit()
    all = Checks()
    checks(all)
    sys.exit(all.close())
