"""What a collector wrote in; records as flat dictionaries, and what they say of connections, out."""
import collections, json, time


def value(v):
    kind, inner = next(iter(v.items()))
    if kind == "intValue": return int(inner)
    if kind == "arrayValue": return [value(x) for x in inner.get("values", [])]
    return inner


def pairs(attributes): return {a["key"]: value(a["value"]) for a in attributes}


class Reading:
    """A file that is still being written: what was read of it stays read."""
    def __init__(self): self.at, self.found = 0, {}

    def go_on(self, file):
        if not file.exists(): return
        with open(file, "rb") as lines:
            lines.seek(self.at)
            for line in lines:
                if not line.endswith(b"\n"): break
                self.at += len(line)
                self.take(json.loads(line))

    def take(self, request):
        for resource in request["resourceLogs"]:
            about = pairs(resource["resource"]["attributes"])
            for scope in resource["scopeLogs"]:
                for record in scope["logRecords"]:
                    flat = pairs(record["attributes"]) | {"resource": about, "event": record["eventName"].removeprefix("flowtel.")}
                    self.found[flat["log.record.uid"]] = flat


readings = collections.defaultdict(Reading)


def read(file):
    """All records of a file of the collector's file exporter: attributes, with `event` and `resource` beside them. A record that
    was sent again is a copy (log.record.uid), and counts once."""
    reading = readings[file]
    reading.go_on(file)
    return list(reading.found.values())


def settled(file, enough, patience=30, progress=len):
    """The file's records, once `enough` says yes to them; or as they are when `progress` of them has not risen for that long, and
    the caller then sees what is missing. What comes too much has two seconds to come."""
    began = since = time.monotonic()
    last = None
    while not enough(records := read(file)):
        now, at = time.monotonic(), progress(records)
        if at != last: last, since = at, now
        if now - since > patience or now - began > 10 * patience: break
        time.sleep(1)
    time.sleep(2)
    return read(file)


def ends(record): return (f"{record.get('source.address')}:{record.get('source.port')}", f"{record['destination.address']}:{record.get('destination.port')}")


def tally(records, own=lambda record: True):
    """How often each (event, direction, from, to) is there; `failed` has no port of its source, as talker doesn't know it."""
    counts = collections.Counter()
    for record in records:
        if "destination.address" not in record or not own(record): continue
        source, destination = ends(record)
        event = record["event"].split(".")[-1]
        if event == "failed": source = record["source.address"]
        counts[event, record.get("flowtel.flow.direction"), source, destination] += record.get("flowtel.fold.count", 1)
    return counts
