"""What a real collector wrote: its OTLP/JSON lines come in, flows by source port go out."""

import collections
import json


def records(path):
    """Each record of the file, as (event name, attributes)."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        for resource in json.loads(line).get("resourceLogs", []):
            for scope in resource.get("scopeLogs", []):
                for record in scope.get("logRecords", []):
                    values = {a["key"]: next(iter(a["value"].values()), None) for a in record.get("attributes", [])}
                    yield record.get("eventName"), values


def flows(path, ports):
    """How often each (source port, direction, event) of these ports was recorded: distinct uids, and in all."""
    uids, total = collections.defaultdict(set), collections.Counter()
    for event, values in records(path):
        port = int(values.get("source.port", 0))
        if port in ports:
            key = port, values.get("flowtel.flow.direction"), event.removeprefix("flowtel.tcp.flow.")
            uids[key].add(values["log.record.uid"])
            total[key] += 1
    return uids, total


def check(path, ports):
    """Every connection has its begin and end on both sides, each as one record; returns how many copies there are."""
    uids, total = flows(path, ports)
    wanted = {(p, d, e) for p in ports for d in ("outgoing", "incoming") for e in ("begin", "end")}
    missing, strange = wanted - set(uids), set(uids) - wanted
    double = {key: len(ids) for key, ids in uids.items() if len(ids) != 1}
    assert not missing, f"{len(missing)} of {len(wanted)} are missing: {sorted(missing)[:8]}"
    assert not strange, f"nobody asked for these: {sorted(strange, key=str)[:8]}"
    assert not double, f"recorded twice: {sorted(double.items())[:8]}"
    return sum(total.values()) - len(wanted)
