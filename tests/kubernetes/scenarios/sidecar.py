"""A flowtel within a pod sees that pod's connections, and no others."""
import pods, records
from lab import SIDECAR, Pod

SPACE = "side"


def own_only(lab):
    c = lab.cluster
    c.kubectl("create", "namespace", SPACE)
    c.kubectl("label", "namespace", SPACE, "pod-security.kubernetes.io/enforce=privileged")
    lab.release("install", "flowtel", "--namespace", SPACE, **{"agent.enabled": "false", "sidecar.enabled": "true", "receiver.endpoint": SIDECAR})
    try:
        c.apply(pods.fill(pods.DEPLOYMENT, "app", SPACE))
        patch = c.get("-n", SPACE, "configmap", "flowtel-sidecar")["data"]["patch.yaml"]
        (c.state / "patch.yaml").write_text(patch)
        c.kubectl("-n", SPACE, "patch", "deployment", "app", "--patch-file", c.state / "patch.yaml")
        c.kubectl("-n", SPACE, "rollout", "status", "deployment/app", "--timeout=90s")
        items = [i for i in c.get("-n", SPACE, "pods", "-l", "app=app")["items"] if "deletionTimestamp" not in i["metadata"] and "initContainers" in i["spec"]]
        app = Pod(lab, items[0]["metadata"]["name"], SPACE)
        sidecar = items[0]["status"]["initContainerStatuses"][0]
        assert sidecar["ready"] and sidecar["started"] and items[0]["spec"]["initContainers"][0]["restartPolicy"] == "Always", sidecar
        other = lab.pods["guaranteed"]
        out = lab.dial(app.name, 5, f"{other.ip}:8080", namespace=SPACE)
        into = lab.dial("burstable", 5, f"{app.ip}:8080")
        foreign = lab.dial("burstable", 5, f"{other.ip}:8081")
        wanted = {(event, "outgoing", *ends) for event in ("begin", "end") for ends in out}
        wanted |= {(event, "incoming", *ends) for event in ("begin", "end") for ends in into}
        found = records.settled(c.state / "sidecar.jsonl", lambda all: wanted <= set(records.tally(all)))
        got = records.tally(found)
        assert set(got) == wanted and set(got.values()) == {1}, f"missed {wanted - set(got)}, too much {set(got) - wanted}, {got}"
        assert not {ends for _, _, *ends in got if tuple(ends) in set(foreign)}, got
        for record in found:
            if "destination.address" not in record: continue
            assert record["k8s.pod.uid"] == app.uid and record["container.id"] == app.container, record
        # The host's flowtel has its own records of the same flows.
        flows = {record["flowtel.flow.id"] for record in found if "flowtel.flow.id" in record}
        host = [r for r in lab.records() if r.get("flowtel.flow.id") in flows]
        assert {r["flowtel.flow.id"] for r in host} == flows
        assert not {r["log.record.uid"] for r in host} & {r["log.record.uid"] for r in found}
        assert {r["resource"]["service.instance.id"] for r in host}.isdisjoint(r["resource"]["service.instance.id"] for r in found)
    except Exception:
        for item in c.get("-n", SPACE, "pods", "-l", "app=app")["items"]:
            print(c.kubectl("-n", SPACE, "logs", item["metadata"]["name"], "-c", "flowtel", "--tail=20", check=False).stdout)
        raise
    finally:
        c.helm("uninstall", "flowtel", "--namespace", SPACE)
        c.kubectl("delete", "namespace", SPACE, "--wait=false")


ALL = [("a native sidecar records its own pod's connections, of all its containers, and no others", own_only)]
