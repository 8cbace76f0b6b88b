#!/usr/bin/env python3
"""Asks a real Elasticsearch, behind a real collector, what docs/elastic.md asks, and compares with what was sent.

Starts target/stack/elasticsearch (as an ordinary user, where this one is root) and target/stack/otelcol on free loopback ports
with the shipped configurations (only addresses and folders changed); puts component templates of the shape of Elastic's own
first, then runs config/elastic/setup.sh twice. Needs Java 17, and of Python only its library.
    tests/stack/build.sh otelcol elasticsearch && tests/stack/elastic.py
"""
import collections, datetime, ipaddress, json, os, pathlib, pwd, random, re, shutil, subprocess, sys, tempfile, time
import urllib.error, urllib.request

from stand import ROOT, STACK, Checks, end, equal, free_ports, put, send, start, wait

BEGIN, END, FAILED, GAP = "flowtel.tcp.flow.begin", "flowtel.tcp.flow.end", "flowtel.tcp.flow.failed", "flowtel.gap"
SITES = [("93.184.216.34", ["example.com", "www.example.com"]), ("140.82.121.4", ["github.com"]), ("203.0.113.9", []),
         ("10.96.0.10", ["kube-dns.kube-system.svc.cluster.local"]), ("2001:db8::5", ["v6.example.net"]), ("127.0.0.1", ["localhost"])]
STREAM = "logs-flowtel.otel-default"


# === records

def flows(n, t0):
    """n connections and attempts: begin and end, or a failure, each with a time whose nanoseconds have zeros in every place."""
    rnd, at = random.Random(7), t0
    for i in range(n):
        address, names = SITES[rnd.randrange(len(SITES))]
        v6, local = ":" in address, address.startswith("127.")
        mine = "127.0.0.1" if local else f"fd00::{i + 1:x}" if v6 else str(ipaddress.ip_address("10.0.0.1") + rnd.randrange(60000))
        program, port = rnd.choice(["curl", "python3", "nginx", "ssh"]), rnd.choice([443, 443, 80, 22])
        at += rnd.choice([1_000_000, 60_001, 350, 100_000_007])
        a = {"log.record.uid": f"{i:030x}b0", "flowtel.flow.id": f"{i:032x}", "flowtel.flow.community_id": f"1:{i:027d}=",
             "source.address": mine, "source.port": 32768 + i % 28000, "destination.address": address, "destination.port": port,
             "network.transport": "tcp", "network.type": "ipv6" if v6 else "ipv4",
             "flowtel.flow.direction": "outgoing", "process.pid": 1000 + i % 50, "process.real_user.id": 1000 + i % 3,
             "thread.name": program, "process.executable.name": program, "process.executable.path": f"/usr/bin/{program}"}
        if names: a["flowtel.destination.dns.names"] = names
        def record(event, at, uid, **more):
            attributes = a | {"log.record.uid": f"{i:030x}{uid}"} | {k.replace("_", "."): v for k, v in more.items()}
            return {"host": "node-1", "time": at, "event": event, "body": f"{program} {event}", "attributes": attributes}
        if i % 9 == 4:
            yield record(FAILED, at, "f0", error_type=rnd.choice(["refused", "timed_out"]))
            continue
        lasts = rnd.choice([1_000_000, 250, 3_600_000_000_001, 60_350])
        yield record(BEGIN, at, "b0", flowtel_tcp_handshake_duration=rnd.choice([0.0004, 0.02, 0.15, 1.2]))
        yield record(END, at + lasts, "e0", flowtel_flow_duration=lasts / 1e9, flowtel_flow_end_reason="fin",
                     flowtel_source_bytes=rnd.randrange(10_000), flowtel_destination_bytes=rnd.randrange(1_000_000),
                     flowtel_source_packets=10, flowtel_destination_packets=12)
    a = {"log.record.uid": "9" * 32, "flowtel.gap.events": 7, "flowtel.gap.stage": "kernel", "flowtel.gap.reason": "flows_ring_full"}
    yield {"host": "node-1", "time": at, "event": GAP, "body": "gap", "attributes": a}


UPDATE = "flowtel.tcp.flow.update"


def updates(t0):
    """What was recorded of connections that are open: three of each, five minutes apart."""
    for i, (address, rate) in enumerate([("198.51.100.7", 1000), ("198.51.100.8", 50), ("2001:db8::77", 7)]):
        for n in range(3):
            passed = rate * (n + 1) + 13 * n
            before = (rate * n + 13 * (n - 1)) if n else 0
            a = {"log.record.uid": f"{i:030x}u{n}", "flowtel.flow.id": f"{i:031x}u", "flowtel.flow.direction": "outgoing",
                 "source.address": "fd00::1" if ":" in address else "10.1.2.3", "source.port": 50000 + i, "destination.address": address, "destination.port": 443,
                 "network.transport": "tcp", "network.type": "ipv6" if ":" in address else "ipv4", "flowtel.flow.duration": 300.0 * (n + 1),
                 "flowtel.source.bytes": passed, "flowtel.destination.bytes": 10 * passed,
                 "flowtel.delta.source.bytes": passed - before, "flowtel.delta.destination.bytes": 10 * (passed - before)}
            yield {"host": "node-1", "time": t0 + n * 300 * 10**9 + i, "event": UPDATE, "body": f"update {n}", "attributes": a}


def over_time(flat):
    """Bytes by destination, and by five minutes."""
    sums = collections.Counter()
    for f in flat:
        if "flowtel.delta.source.bytes" in f:
            sums[f["destination.address"], f["time"] // (300 * 10**9) * 300_000] += f["flowtel.delta.source.bytes"]
    return dict(sums)


# === Elasticsearch

class Elastic:
    def __init__(self, base): self.base = base

    def ask(self, path, body=None, method=None, ok=(200,)):
        request = urllib.request.Request(f"{self.base}/{path}", None if body is None else json.dumps(body).encode(),
                                         {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as r: return json.load(r)
        except urllib.error.HTTPError as e:
            text = e.read().decode()
            assert e.code in ok, f"HTTP {e.code}: {text}"
            return json.loads(text)

    def count(self, stream=STREAM): return self.ask(f"{stream}/_count", ok=(404, 503)).get("count", 0)

    def settle(self, want, stream=STREAM, seconds=90):
        until = time.time() + seconds
        while self.count(stream) != want and time.time() < until: time.sleep(0.5)
        return self.count(stream)

    def documents(self, stream, fields):
        """All documents: id → fields."""
        found, after = {}, None
        while True:
            body = {"size": 1000, "sort": ["_doc"], "_source": False, "fields": fields, "track_total_hits": False} | ({"search_after": after} if after else {})
            hits = self.ask(f"{stream}/_search", body)["hits"]["hits"]
            if not hits: return found
            for h in hits: found[h["_id"]] = h.get("fields", {})
            after = hits[-1]["sort"]


# What Elastic's own component templates look like where they matter: an alias into a passthrough object of the resource.
STOCK = {
    "otel@mappings": {"template": {"mappings": {"dynamic": False, "properties": {
        "attributes": {"type": "passthrough", "dynamic": True, "priority": 20},
        "scope": {"properties": {"attributes": {"type": "passthrough", "dynamic": True, "priority": 30}}},
        "resource": {"properties": {"attributes": {"type": "passthrough", "dynamic": True, "priority": 40}}}}}}},
    "semconv-resource-to-ecs@mappings": {"template": {"mappings": {"properties": {
        "resource": {"properties": {"attributes": {"type": "passthrough", "dynamic": True, "priority": 40, "properties": {
            "process.executable.path": {"type": "keyword"}, "host.arch": {"type": "keyword"}}}}},
        "process": {"properties": {"executable": {"type": "alias", "path": "resource.attributes.process.executable.path"}}}}}}},
}
STOCK["logs-otel@mappings"] = STOCK["otel@mappings"]


def elasticsearch(folder, port, transport):
    """A server with a folder of its own; it refuses to run as root."""
    home, data = STACK / "elasticsearch", folder / "es"
    (data / "config").mkdir(parents=True)
    for f in (home / "config").iterdir():
        if f.is_file(): shutil.copy(f, data / "config")
    # The launcher writes logs beside the program otherwise, which is not this user's.
    options = (data / "config/jvm.options").read_text()
    (data / "config/jvm.options").write_text(options.replace("file=logs/", f"file={data}/logs/")
        .replace("-XX:HeapDumpPath=data", f"-XX:HeapDumpPath={data}").replace("-XX:ErrorFile=logs", f"-XX:ErrorFile={data}/logs"))
    for d in ("logs", "tmp"): (data / d).mkdir()
    (data / "config/elasticsearch.yml").write_text(
        f"discovery.type: single-node\nnetwork.host: 127.0.0.1\nhttp.port: {port}\ntransport.port: {transport}\nxpack.security.enabled: false\ncluster.routing.allocation.disk.threshold_enabled: false\n"
        f"path.data: {data}/data\npath.logs: {data}/logs\n")
    java = pathlib.Path(shutil.which("java")).resolve().parents[1]
    env = {"PATH": os.environ["PATH"], "ES_JAVA_HOME": str(java), "ES_PATH_CONF": str(data / "config"), "ES_JAVA_OPTS": "-Xms1g -Xmx1g",
           "ES_TMPDIR": str(data / "tmp"), "HOME": str(data)}
    run = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        folder.chmod(0o755)
        for d, _, files in os.walk(data):
            for f in [d, *(os.path.join(d, f) for f in files)]: os.chown(f, nobody.pw_uid, nobody.pw_gid)
        run = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    log = open(folder / "elasticsearch.log", "w")
    # A group of its own: the launcher starts the server as its child.
    return subprocess.Popen([home / "bin/elasticsearch"], cwd=data, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **run)


def setup(base, **more):
    return subprocess.run(["bash", ROOT / "config/elastic/setup.sh"], env=os.environ | {"ELASTICSEARCH": base} | more, text=True, capture_output=True)


# === what is asked, and what must come

def expectations(records):
    """Each command of docs/elastic.md, in its order: what to take of its answer, and what that must be."""
    flat = [{"event": r["event"], "time": r["time"], **r["attributes"]} for r in records]
    def net(f, side, *cidrs):
        a = ipaddress.ip_address(f.get(f"{side}.address", "::"))
        return any(a.version == n.version and a in n for n in map(ipaddress.ip_network, cidrs))
    far = [f for f in flat if not net(f, "source", "127.0.0.0/8", "::1/128")]
    begins = [f for f in far if f["event"] == BEGIN]
    ends = [f for f in far if f["event"] == END]
    refused = [f for f in far if f["event"] == FAILED and f.get("error.type") == "refused"]
    def hits(answer): return answer["hits"]["total"]["value"]
    def buckets(answer): return {b["key"]: b["doc_count"] for b in next(iter(answer["aggregations"].values()))["buckets"]}
    counted = lambda rows, key: dict(collections.Counter(f[key] for f in rows))
    talk = collections.Counter()
    for f in ends: talk[f["destination.address"]] += f["flowtel.source.bytes"]
    first = {}
    for f in begins: first[f["destination.address"]] = min(f["time"], first.get(f["destination.address"], 1 << 63))
    handshakes = sorted(f["flowtel.tcp.handshake.duration"] for f in begins)
    longest = sorted((f["flowtel.flow.duration"] for f in ends), reverse=True)[:10]
    return [
        (hits, sum(net(f, "destination", "93.184.0.0/16") for f in begins)),
        (hits, sum("github.com" in f.get("flowtel.destination.dns.names", []) for f in begins)),
        (buckets, counted(refused, "process.executable.name")),
        (buckets, counted(begins, "process.executable.name")),
        (lambda a: {b["key"]: b["bytes"]["value"] for b in a["aggregations"]["destinations"]["buckets"]}, {k: float(v) for k, v in talk.items()}),
        (lambda a: {(d["key"], t["key"]): t["bytes"]["value"] for d in a["aggregations"]["destinations"]["buckets"] for t in d["times"]["buckets"]},
         {k: float(v) for k, v in over_time(flat).items()}),
        (lambda a: abs(a["aggregations"]["handshake"]["values"]["95.0"] - handshakes[int(len(handshakes) * 0.95)]) < 0.2, True),
        (lambda a: [h["fields"]["flowtel.flow.duration"][0] for h in a["hits"]["hits"]], longest),
        (lambda a: {b["key"]: b["first"]["value_as_string"] for b in a["aggregations"]["destinations"]["buckets"]},
         {k: stamp(v // 10**6 * 10**6) for k, v in first.items()}), # aggregations count milliseconds
        (hits, sum("flowtel.destination.dns.names" not in f for f in begins)),
        (lambda a: a["aggregations"]["missing"]["value"], 7.0),
        (lambda a: a["aggregations"]["records"]["value"], len({f["log.record.uid"] for f in flat})),
    ]


def stamp(nanoseconds):
    """As Elasticsearch writes a stamp of date_nanos: without the zeros at its end, but with milliseconds."""
    second, rest = divmod(nanoseconds, 10**9)
    digits = f"{rest:09d}".rstrip("0").ljust(3, "0")
    return datetime.datetime.fromtimestamp(second, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + f".{digits}Z"


def commands(page):
    """What each command of the page is for, and the command."""
    return re.findall(r"^\*\*([^*\n]+)\.\*\*(?:(?!^\*\*).)*?^```sh elastic\n(.*?)\n```", page, re.S | re.M)


def main():
    for name in ("otelcol", "elasticsearch"):
        if not (STACK / name).exists():
            print(f"skipped: {STACK / name} is not there (tests/stack/build.sh {name})\n0 passed, 0 failed, 1 skipped")
            return 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="flowtel-elastic-"))
    http, transport, o_grpc, o_http, o_health, o_metrics = free_ports(6)
    base = f"http://127.0.0.1:{http}"
    put(ROOT / "config/collector/elastic.yaml",
        [("0.0.0.0:4317", f"127.0.0.1:{o_grpc}"), ("0.0.0.0:4318", f"127.0.0.1:{o_http}"), ("0.0.0.0:13133", f"127.0.0.1:{o_health}"),
         ('host: "0.0.0.0"', 'host: "127.0.0.1"'), ("port: 8888", f"port: {o_metrics}"), ("http://elasticsearch:9200", base),
         ("/var/lib/otelcol", str(folder / "otelcol"))], folder / "elastic.yaml")
    put(ROOT / "config/collector/elastic-ecs.yaml", [("http://elasticsearch:9200", base)], folder / "ecs.yaml")
    children, checks = [], Checks()
    check, es = checks.check, Elastic(base)
    try:
        children.append(elasticsearch(folder, http, transport))
        wait("elasticsearch", f"{base}/_cluster/health?wait_for_status=yellow&timeout=1s", children[0], 180)
        for name, template in STOCK.items(): es.ask(f"_component_template/{name}", template, "PUT")
        for again, words in ((1, "documents are kept 30d"), (2, "documents are kept 30d")):
            done = setup(base, FLOWTEL_RETENTION="30d")
            check(f"setup beside Elastic's own templates, run {again}", lambda: equal((done.returncode, words in done.stdout), (0, True)))
        wrong = setup(base, FLOWTEL_RETENTION='30d"')
        check("setup refuses a retention that is none, in words", lambda: equal((wrong.returncode, "expected a time" in wrong.stderr), (64, True)))

        children.append(start("otelcol", ["--config=elastic.yaml", "--config=ecs.yaml"], folder))
        wait("otelcol", f"http://127.0.0.1:{o_health}/", children[1])
        start_of_all = (time.time_ns() // 10**9 - 7200) * 10**9 + 60_350
        records = [*flows(1500, start_of_all), *updates(start_of_all)]
        want = {r["attributes"]["log.record.uid"]: r for r in records}
        send(o_http, records)
        check("every record arrived, once", lambda: equal(es.settle(len(records)), len(records)))
        check("and once more as an ECS document", lambda: equal(es.settle(len(records), "logs-flowtel-default"), len(records)))

        # Shipped as they are, stamps of the exporter's own form were up to a millisecond late.
        form = [{"field": "@timestamp", "format": "strict_date_optional_time_nanos"}]
        for stream in (STREAM, "logs-flowtel-default"):
            found = es.documents(stream, form)
            check(f"{stream}: each stamp is the record's, to the nanosecond",
                  lambda: equal({i for i, f in found.items() if f["@timestamp"] != [stamp(want[i]["time"])]}, set()))
        spans = es.documents(STREAM, ["event.start", "event.end", "event.duration", "event_name"])
        ends = {i: f for i, f in spans.items() if f["event_name"] == [END]}
        check("no flow ends before it begins, and its start is that of its begin", lambda: equal(
            {i for i, f in ends.items() if f["event.start"] != [stamp(want[i[:30] + "b0"]["time"])]}, set()))

        # A copy makes no second document.
        send(o_http, records[:500])
        time.sleep(4)
        es.ask(f"{STREAM}/_refresh", method="POST")
        check("a request that is sent again makes no second document", lambda: equal(es.count(), len(records)))

        asked, wanted = commands((ROOT / "docs/elastic.md").read_text()), expectations(records)
        check("each command of docs/elastic.md has its expectation", lambda: equal(len(asked), len(wanted)))
        for (what, command), (take, must) in zip(asked, wanted):
            def run():
                done = subprocess.run(["bash", "-euc", command], env=os.environ | {"ES": base}, text=True, capture_output=True)
                assert done.returncode == 0, done.stderr + done.stdout
                equal(take(json.loads(done.stdout)), must)
            check(f"docs: {what}", run)

        both = [("source.ip", "attributes.source.address", "10.0.0.0/8"), ("destination.ip", "attributes.destination.address", "2001:db8::/32"),
                ("destination.domain", "attributes.flowtel.destination.dns.names", "github.com"), ("process.name", "process.executable.name", "curl"),
                ("user.id", "attributes.process.real_user.id", 1001), ("network.direction", "attributes.network.direction", "egress"),
                ("event.action", "attributes.event.action", "flow-failed"), ("network.community_id", "attributes.flowtel.flow.community_id", f"1:{4:027d}="),
                ("source.bytes", "attributes.flowtel.source.bytes", None), ("destination.packets", "attributes.flowtel.destination.packets", None)]
        for ecs, otel, value in both:
            def number(field):
                query = {"exists": {"field": field}} if value is None else {"term": {field: value}}
                return es.ask(f"{STREAM}/_count", {"query": query})["count"]
            check(f"{ecs} answers as {otel} does", lambda: equal((number(ecs), number(ecs) > 0), (number(otel), True)))
        ecs = es.documents("logs-flowtel-default", ["ecs.version", "event.kind", "event.category", "event.type", "event.duration", "source.bytes", "user.id", "elastic.mapping.mode"])
        whole = [f for i, f in ecs.items() if i.endswith("e0")]
        check("ECS documents are whole, and nothing of the collector's is left in them", lambda: equal(
            [f for f in whole if f.get("ecs.version") != ["8.17.0"] or "event.duration" not in f or "source.bytes" not in f or "user.id" not in f
             or "elastic.mapping.mode" in f or f.get("event.category") != ["network"]], []))

        # One id is unique within a backing index alone: the docs say so, and how to count all the same.
        es.ask(f"{STREAM}/_rollover", method="POST")
        send(o_http, records[:300])
        check("after a rollover a copy is a second document", lambda: equal(es.settle(len(records) + 300), len(records) + 300))
        distinct = asked[-1][1]
        done = subprocess.run(["bash", "-euc", distinct], env=os.environ | {"ES": base}, text=True, capture_output=True)
        check("and the query for distinct ids counts it once", lambda: equal(
            json.loads(done.stdout)["aggregations"]["records"]["value"], len(records)))

        es.ask(f"{STREAM}/_forcemerge?max_num_segments=1", method="POST")
        size = es.ask(f"{STREAM}/_stats/store,docs")["_all"]["primaries"]
        print(f"size: {size['store']['size_in_bytes'] / size['docs']['count']:.0f} bytes a document")
    finally:
        end(children)
        if checks.failed == 0 and sys.exc_info()[0] is None: shutil.rmtree(folder)
        else: print(f"logs: {folder}")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
