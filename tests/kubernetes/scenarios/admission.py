"""Pod Security: which level lets the chart in, and what the others do."""
import time


def level(lab, name):
    c = lab.cluster
    c.kubectl("create", "namespace", name)
    c.kubectl("label", "namespace", name, f"pod-security.kubernetes.io/enforce={name}")
    warned = lab.release("install", f"flowtel-{name}", "--namespace", name)
    try:
        end = time.monotonic() + 40
        while time.monotonic() < end:
            events = c.get("-n", name, "events")["items"]
            if refused := [e["message"] for e in events if e["reason"] == "FailedCreate"]: break
            time.sleep(0.5)
        assert refused, f"no event FailedCreate in {name}"
        assert "violates PodSecurity" in refused[0], refused[0]
        assert not c.get("-n", name, "pods")["items"], "pods were made"
        return refused[0], warned.stderr
    finally:
        c.helm("uninstall", f"flowtel-{name}", "--namespace", name)
        c.kubectl("delete", "namespace", name, "--wait=false")


def stricter(lab):
    for name in ("baseline", "restricted"): level(lab, name)


def privileged(lab):
    lab.cluster.kubectl("create", "namespace", "flowtel")
    lab.cluster.kubectl("label", "namespace", "flowtel", "pod-security.kubernetes.io/enforce=privileged")
    lab.helm()
    status = lab.cluster.kubectl("-n", "flowtel", "exec", "daemonset/flowtel", "--", "/flowtel", "status").stdout
    assert "running" in status, status
    security = lab.agent()["spec"]["containers"][0]["securityContext"]
    assert security["privileged"] is False and security["capabilities"]["drop"] == ["ALL"] and security["readOnlyRootFilesystem"], security
    # What the kernel says of it.
    with open(f"/proc/{lab.agent_process()}/status") as file: status = dict(line.split(":\t", 1) for line in file.read().splitlines())
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
    assert status["Uid"].split() == ["65534"] * 4, status["Uid"]
    for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"): assert int(status[kind], 16) == 0, (kind, status[kind])


ALL = [
    ("a namespace of level baseline or restricted accepts the DaemonSet and makes no pods", stricter),
    ("one of level privileged runs it: not privileged, RuntimeDefault's seccomp, and after the start no root and no capability", privileged),
]
