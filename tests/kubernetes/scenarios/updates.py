"""The agent is replaced, deleted, killed, and the kubelet restarted, while pods connect; what that costs is counted."""
import collections, os, signal, time

import records
from lab import VERSIONS

PER_SECOND = int(os.environ.get("FLOWTEL_LOAD", "200"))
EVENTS = ("begin", "end")


def target(lab): return [f"{lab.pods['guaranteed'].ip}:{port}" for port in (8080, 8081, 8082, 8083)]


def count(lab, load):
    """(missed, twice, records, folded) of what a load should have told, 4 records a connection. A port may have been used before it.
    What is folded has no record of its own, so it is missed too; a count has it (docs/losses.md)."""
    made = load.made
    assert len(made) > 1000, f"the load made {len(made)} connections only"
    wanted = collections.Counter()
    for source, to in made:
        assert source, f"the load could not connect to {to}"
        for event in EVENTS:
            for direction in ("outgoing", "incoming"): wanted[event, direction, source, to] += 1
    keys = {(source, to) for source, to in made}
    own = lambda record: records.ends(record) in keys and record["log.record.uid"] not in load.before
    # Late is not missed: on a busy machine a request may time out, and be sent again half a minute later.
    arrived = lambda all: sum(records.tally(all, own).values())
    found = lab.records(lambda all: arrived(all) >= sum(wanted.values()), patience=45, progress=arrived)
    got = records.tally(found, own)
    mine = [record for record in found if "destination.address" in record and own(record)]
    hosts = {tuple(end.rpartition(":")[0] for end in key) for key in keys}
    folded = sum(record["flowtel.fold.count"] for record in found if record["log.record.uid"] not in load.before
                 and "flowtel.fold.count" in record and record["event"].split(".")[-1] in EVENTS
                 and (record.get("source.address"), record.get("destination.address")) in hosts)
    return wanted - got, got - wanted, mine, folded


def rolling(lab):
    client, server = lab.pods["besteffort"], lab.pods["guaranteed"]
    lab.installed()
    with lab.load(client.name, PER_SECOND, *target(lab)) as load:
        took = []
        for version in VERSIONS[1:4]:
            began = time.monotonic()
            lab.helm(**{"image.tag": version})
            took.append(time.monotonic() - began)
            assert lab.agent()["spec"]["containers"][0]["image"].endswith(version)
            time.sleep(5)
        time.sleep(max(0, 11_000 / PER_SECOND - sum(took) - 15))
    missed, twice, mine, folded = count(lab, load)
    lab.cluster.say(f"3 updates, {', '.join(f'{t:.1f}' for t in took)} s; {len(load.made)} connections, {len(mine)} records, "
                    f"{sum(missed.values())} missed ({folded} of them folded), {sum(twice.values())} twice")
    assert len(load.made) >= 10_000, f"only {len(load.made)} connections"
    gaps = [r for r in lab.records() if r["event"] == "gap" and r["log.record.uid"] not in load.before]
    assert not missed and not twice, f"missed {list(missed.items())[:3]}, twice {list(twice.items())[:3]}, folded {folded}, gaps {gaps}"
    right = lambda r: (client if r["flowtel.flow.direction"] == "outgoing" else server).uid
    wrong = [r for r in mine if r.get("k8s.pod.uid", right(r)) != right(r)]
    assert not wrong, f"{len(wrong)} records of the wrong pod: {wrong[0]}"
    # A begin is told 50 ms after its handshake, whether the server has accepted by then or not.
    none = [r for r in mine if "k8s.pod.uid" not in r]
    late = [r for r in none if r["event"].endswith("begin") and r["flowtel.flow.direction"] == "incoming"]
    lab.cluster.say(f"without a pod: {len(none)}, of which begins that no process had accepted: {len(late)}")
    assert len(none) == len(late), next(r for r in none if r not in late)
    assert not gaps, gaps
    used = lab.cluster.used(lab.agent())
    lab.cluster.say(f"the last agent: {used['memory'] / 2**20:.0f} MiB at most, {used['cpu']:.1f} s of CPU")


def disturbed(lab, what, disturb):
    """One row of the table of losses: what is missed while `disturb` happens under load."""
    lab.installed()
    with lab.load("besteffort", PER_SECOND, *target(lab)) as load:
        time.sleep(3)
        disturb()
        lab.rolled_out()
        time.sleep(5)
    missed, twice, mine, folded = count(lab, load)
    by_event = collections.Counter()
    for (event, *_), n in missed.items(): by_event[event] += n
    lab.cluster.say(f"loss table: {what}: {len(load.made)} connections, {len(mine)} records, missed {dict(by_event) or 0}, of them folded {folded}, twice {sum(twice.values())}")
    return missed, twice, folded


def deleted(lab):
    def disturb():
        name = lab.agent()["metadata"]["name"]
        lab.cluster.kubectl("-n", "flowtel", "delete", "pod", name)
    missed, twice, _ = disturbed(lab, "kubectl delete pod", disturb)
    assert not missed and not twice, (list(missed.items())[:3], list(twice.items())[:3])


def killed(lab):
    def disturb():
        restarts = lambda: lab.agent()["status"]["containerStatuses"][0]["restartCount"]
        before = restarts()
        os.kill(lab.agent_process(), signal.SIGKILL)
        lab.cluster.until("the agent's container again", lambda: restarts() > before, 60)
    missed, twice, _ = disturbed(lab, "kill -9 of flowtel", disturb)
    assert not twice, list(twice.items())[:3]
    # At most what was read and not yet on the disk: a tick, a batch's age, a commit. Ten seconds' worth would be another fault.
    assert sum(missed.values()) < 4 * 10 * PER_SECOND, f"{sum(missed.values())} missed"


def kubelet(lab):
    def disturb():
        lab.cluster.end("kubelet")
        lab.cluster.kubelet()
        time.sleep(8)
    missed, twice, _ = disturbed(lab, "kubelet restarted", disturb)
    assert not missed and not twice, (list(missed.items())[:3], list(twice.items())[:3])


def crowded(lab):
    """Rings that hold less than happens while the pod is replaced: each begin or end without a record is in a count or a gap."""
    roomy = {key: lab.values.get(key, room) for key, room in (("agent.rings.flows", "8MiB"), ("agent.rings.owners", "4MiB"))}
    lab.helm(**{key: "64KiB" for key in roomy})
    before = {r["log.record.uid"] for r in lab.records()}
    def disturb(): lab.cluster.kubectl("-n", "flowtel", "delete", "pod", lab.agent()["metadata"]["name"])
    missed, _, folded = disturbed(lab, "rings too small", disturb)
    gaps = sum(r["flowtel.gap.events"] for r in lab.records() if r["event"] == "gap" and r["log.record.uid"] not in before
               and r["flowtel.gap.reason"] == "flows_ring_full")
    lab.helm(**roomy)
    assert missed and gaps, "the rings were large enough"
    assert sum(missed.values()) <= folded + gaps, f"{sum(missed.values())} missed, {folded} folded, {gaps} in gaps"


ALL = [
    ("three rolling updates under load: of 10,000 connections none is missed and none told twice", rolling),
    ("kubectl delete pod misses nothing", deleted),
    ("rings too small for a replaced pod: what has no record is in a count or a gap", crowded),
    ("kill -9 costs at most what wasn't on the disk yet, and tells nothing twice", killed),
    ("a restart of the kubelet misses nothing", kubelet),
]
