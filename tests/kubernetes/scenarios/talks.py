"""Pods of the three classes of service talk: to each other, to a Service, by name, to a closed port. All of it is recorded, once."""
import collections

import records

SIDES = [(event, direction) for event in ("begin", "end") for direction in ("outgoing", "incoming")]


def check_owner(record, pod):
    assert record.get("k8s.pod.uid") == pod.uid, f"pod {record.get('k8s.pod.uid')}, the API says {pod.uid} ({pod.name}): {record}"
    assert record.get("container.id") == pod.container, f"container {record.get('container.id')}, the API says {pod.container}: {record}"


def verify(lab, made, enough=None):
    """That each connection of `made`, (from, to at the client, to at the server), has its four records, once, by the right pods.
    Returns the records."""
    wanted = collections.Counter()
    for source, outgoing, incoming in made:
        for event in ("begin", "end"):
            wanted[event, "outgoing", source, outgoing] += 1
            wanted[event, "incoming", source, incoming] += 1
    keys = {(key[2], key[3]) for key in wanted}
    own = lambda record: records.ends(record) in keys
    found = lab.records(lambda all: sum(records.tally(all, own).values()) >= sum(wanted.values()))
    got = records.tally(found, own)
    missed, twice = wanted - got, got - wanted
    assert not missed and not twice, f"{sum(missed.values())} missed: {list(missed.items())[:4]}; {sum(twice.values())} too much: {list(twice.items())[:4]}"
    by_address = {pod.ip: pod for pod in lab.pods.values()}
    mine = [record for record in found if "destination.address" in record and own(record)]
    for record in mine:
        outgoing = record["flowtel.flow.direction"] == "outgoing"
        address = record["source.address"] if outgoing else record["destination.address"]
        if address in by_address: check_owner(record, by_address[address])
    return mine


def straight(made): return [(source, to, to) for source, to in made]


def each_other(lab):
    made = []
    for a in lab.pods.values():
        made += lab.dial(a.name, 5, *(f"{b.ip}:8080" for b in lab.pods.values() if b is not a))
    assert len(made) == 30
    for record in verify(lab, straight(made)):
        assert record["resource"]["k8s.node.name"] == "node1" and record["resource"]["k8s.cluster.name"] == "test", record["resource"]
        if record["event"].endswith("end"): assert record["flowtel.flow.end.reason"] == "fin", record


def service(lab):
    """The client's socket has the Service's address, the server's its own: the address is rewritten between the two."""
    address = lab.cluster.get("service", "guaranteed")["spec"]["clusterIP"] + ":80"
    server = lab.pods["guaranteed"].ip + ":8080"
    made = lab.dial("burstable", 5, address)
    assert all(to == address for _, to in made), made
    verify(lab, [(source, address, server) for source, _ in made])


def by_name(lab):
    name = "guaranteed.default.svc.cluster.local"
    address = lab.cluster.get("service", "guaranteed")["spec"]["clusterIP"]
    made = lab.dial("besteffort", 5, f"{name}:80")
    assert all(to == f"{address}:80" for _, to in made), made
    found = verify(lab, [(source, f"{address}:80", lab.pods["guaranteed"].ip + ":8080") for source, _ in made])
    for record in found:
        if record["flowtel.flow.direction"] == "outgoing":
            assert name in record.get("flowtel.destination.dns.names", []), record
            assert record["flowtel.destination.dns.origin"] == "own", record


def closed(lab):
    client, server = lab.pods["burstable"], lab.pods["besteffort"]
    to = f"{server.ip}:9"
    made = lab.dial(client.name, 3, to)
    assert made == [(None, to)] * 3, made
    own = lambda record: records.ends(record)[1] == to
    found = lab.records(lambda all: sum(records.tally(all, own).values()) >= 3)
    got = records.tally(found, own)
    assert got["failed", "outgoing", client.ip, to] == 3, got
    mine = [record for record in found if "destination.address" in record and own(record)]
    for record in mine:
        assert record["error.type"] == "refused", record
        if record["flowtel.flow.direction"] == "outgoing": check_owner(record, client)
    # The server's side: the kernel refused, no process did.
    assert sum(got.values()) in (3, 6), got
    return got


ALL = [
    ("pods of all classes of service talk to each other: begin and end of both sides, once, pod and container as the API has them", each_other),
    ("by a Service's address: the client's records have it, the server's have the pod's", service),
    ("by a name that CoreDNS knows: the name is in the record", by_name),
    ("to a closed port: each failure once, by its pod", closed),
]
