#!/usr/bin/env python3
"""Asks a real Loki, behind a real collector, what docs/loki.md and the dashboard ask, and compares with what was sent.

Starts target/stack/otelcol and target/stack/loki on free loopback ports with the shipped configurations (only addresses
and folders changed), sends 2,000 records shaped as flowtel's are, and ends both again. Needs only Python's library.
    tests/stack/build.sh all && tests/stack/queries.py
"""
import collections, ipaddress, json, pathlib, random, re, shutil, sys, tempfile, time
import urllib.error, urllib.parse, urllib.request

from stand import ROOT, STACK, Checks, end, equal, free_ports, put, send, start, wait

SITES = [("93.184.216.34", ["example.com", "www.example.com"]), ("140.82.121.4", ["github.com"]), ("203.0.113.9", []),
         ("10.96.0.10", ["kube-dns.kube-system.svc.cluster.local"]), ("2001:db8::5", ["v6.example.net"]),
         ("192.168.7.7", ["db.example"]), ("151.101.1.140", ["reddit.com", "www.reddit.com", "old.reddit.com"])]
HOSTS = ["node-1", "node-2"]
BEGIN, FAILED, GAP = "flowtel.tcp.flow.begin", "flowtel.tcp.flow.failed", "flowtel.gap"


# === records

def flows(n, t0):
    """n records as plain dictionaries: what is asked for is counted from these."""
    rnd = random.Random(1)
    for i in range(n):
        address, names = SITES[rnd.randrange(len(SITES))]
        if i % 2: # more destinations than the 500 series that Loki allows a query by default
            address, names = f"198.18.{i // 250}.{i % 250 + 1}", []
        v6 = ":" in address
        mine = f"fd00::{rnd.randrange(1, 9999):x}" if v6 else str(ipaddress.ip_address("10.0.0.0") + rnd.randrange(1, 65535))
        out, program = rnd.random() < 0.7, rnd.choice(["curl", "python3", "nginx", "postgres", "ssh"])
        event = GAP if i % 500 == 499 else FAILED if i % 10 == 3 else BEGIN
        own, port = rnd.randrange(32768, 61000), rnd.choice([443, 443, 80, 5432, 22])
        a = {"event.name": event, "log.record.uid": f"uid-{i:06d}"}
        if event == GAP:
            a |= {"flowtel.gap.events": 7, "flowtel.gap.stage": "capture", "flowtel.gap.reason": "ring_full"}
        else:
            s, d = ((mine, own, []), (address, port, names)) if out else ((address, own, names), (mine, port, ["here.example"]))
            a |= {"source.address": s[0], "source.port": s[1], "destination.address": d[0], "destination.port": d[1],
                  "network.transport": "tcp", "network.type": "ipv6" if v6 else "ipv4",
                  "flowtel.flow.direction": "outgoing" if out else "incoming", "flowtel.flow.id": f"{i:032x}",
                  "process.pid": 1000 + rnd.randrange(50), "thread.name": program, "process.executable.name": program}
            for side, end in (("source", s), ("destination", d)):
                if end[2]:  # never an empty list
                    a[f"flowtel.{side}.dns.names"] = end[2]
        if event == BEGIN:
            a["flowtel.tcp.handshake.duration"] = round(rnd.choice([0.0004, 0.02, 0.15, 0.25, 1.2]) * (1 + rnd.random() / 10), 6)
        if event == FAILED:
            a["error.type"] = rnd.choice(["refused", "timed_out"])
        body = f"{program} flow {i}"
        yield {"host": HOSTS[i // 2 % 2], "time": t0 + i * 1_000_000, "event": event, "body": body, "attributes": a}


UPDATE, END = "flowtel.tcp.flow.update", "flowtel.tcp.flow.end"


def updates(t0):
    """What was recorded of connections that go on, and of the end of one: deltas, in both directions."""
    for i, (address, out, rate) in enumerate([("198.51.100.7", True, 1000), ("198.51.100.8", True, 50), ("198.51.100.9", False, 7)]):
        for n in range(3):
            ends = n == 2 and i == 0
            a = {"event.name": END if ends else UPDATE, "log.record.uid": f"uid-update-{i}-{n}", "source.address": "10.1.2.3", "source.port": 50000 + i,
                 "destination.address": address, "destination.port": 443, "network.transport": "tcp", "network.type": "ipv4",
                 "flowtel.flow.direction": "outgoing" if out else "incoming", "flowtel.flow.id": f"update-{i}",
                 "flowtel.source.bytes": rate * (n + 1), "flowtel.delta.source.bytes": rate + n, "flowtel.delta.destination.bytes": n}
            yield {"host": HOSTS[0], "time": t0 + (3 * i + n) * 1_000_000, "event": a["event.name"], "body": f"update {i} {n}", "attributes": a}


def over_time(flat):
    """Bytes by destination, of what this host asked for."""
    sums = collections.Counter()
    for f in flat:
        if "flowtel.delta.source.bytes" in f and f["flowtel.flow.direction"] == "outgoing":
            sums[f["destination.address"],] += f["flowtel.delta.source.bytes"]
    return {k: float(v) for k, v in sums.items()}


# === Loki

class Loki:
    def __init__(self, port): self.base = f"http://127.0.0.1:{port}"

    def ask(self, query, kind="query", **more):
        more = {"query": query, "limit": 5000, **more}
        try:
            with urllib.request.urlopen(f"{self.base}/loki/api/v1/{kind}?{urllib.parse.urlencode(more)}", timeout=30) as r:
                return json.load(r)["data"]["result"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"HTTP {e.code}: {e.read().decode().strip()}") from None

    def entries(self, query):
        """How many records a query for lines finds."""
        now = time.time_ns()
        return sum(len(s["values"]) for s in self.ask(query, "query_range", start=now - 3600 * 10**9, end=now + 10**9))

    def table(self, query):
        """A metric query's answer: label values → number."""
        return {tuple(v for _, v in sorted(r["metric"].items())): float(r["value"][1]) for r in self.ask(query)}


# === what is asked, and what must come

def expectations(records):
    """Each query of docs/loki.md, in its order, with what it must find: a number of lines or a table."""
    flat = [{"host_name": r["host"], "event": r["event"], "body": r["body"], **r["attributes"]} for r in records]
    begins = [f for f in flat if f["event"] == BEGIN]
    def net(f, side, cidr):
        a, n = ipaddress.ip_address(f.get(f"{side}.address", "::")), ipaddress.ip_network(cidr)
        return a.version == n.version and a in n
    def count(rows, *keys):
        # Loki leaves an absent label out of the answer; labels come sorted by name.
        return dict(collections.Counter(tuple(x for x in (text(f.get(k)) for k in sorted(keys, key=lambda k: k.replace(".", "_"))) if x) for f in rows))
    def text(v): return json.dumps(v, separators=(",", ":")) if isinstance(v, list) else "" if v is None else str(v)
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
    slow = collections.defaultdict(float)
    for f in begins: slow[(f["host_name"],)] = max(slow[(f["host_name"],)], f["flowtel.tcp.handshake.duration"])
    out = [f for f in begins if f["flowtel.flow.direction"] == "outgoing"]
    names = "flowtel.destination.dns.names"
    return [
        count([f for f in out if f["destination.port"] != 443 and not any(net(f, "destination", c) for c in private)],
              "host_name", "destination.address", "destination.port", names),
        sum(names not in f for f in out),
        sum(net(f, "source", "10.0.0.0/17") or net(f, "destination", "10.0.0.0/17") for f in flat),
        sum(net(f, "destination", "2001:db8::/32") for f in flat),
        sum("curl" in f["body"] and "example.com" in f.get(names, []) for f in begins),
        sum(f["flowtel.tcp.handshake.duration"] > 0.2 for f in begins),
        dict(slow),
        count([f for f in flat if f["event"] == FAILED], "error.type"),
        dict(sorted(count(begins, "process.executable.name").items(), key=lambda x: -x[1])[:3]),
        over_time(flat),
        sum(f["event"] == GAP for f in flat),
    ]


def main():
    for name in ("otelcol", "loki"):
        if not (STACK / name).exists():
            print(f"skipped: {STACK / name} is not built (tests/stack/build.sh {name})")
            return 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="flowtel-stack-"))
    http, rpc, o_grpc, o_http, o_health, o_metrics = free_ports(6)
    put(ROOT / "config/loki/loki.yaml",
        [("0.0.0.0", "127.0.0.1"), (": 3100", f": {http}"), (": 9096", f": {rpc}"), (" /loki", f" {folder}/loki")], folder / "loki.yaml")
    put(ROOT / "config/collector/loki.yaml",
        [("0.0.0.0:4317", f"127.0.0.1:{o_grpc}"), ("0.0.0.0:4318", f"127.0.0.1:{o_http}"), ("0.0.0.0:13133", f"127.0.0.1:{o_health}"),
         ("0.0.0.0", "127.0.0.1"), ("port: 8888", f"port: {o_metrics}"), ("http://loki:3100", f"http://127.0.0.1:{http}"),
         ("/var/lib/otelcol", str(folder / "otelcol"))], folder / "collector.yaml")
    children, checks = [], Checks()
    check = checks.check
    try:
        children.append(start("loki", ["-config.file=loki.yaml"], folder))
        children.append(start("otelcol", ["--config=collector.yaml", f"--config={ROOT}/config/collector/forward-none.yaml"], folder))
        wait("otelcol", f"http://127.0.0.1:{o_health}/", children[1])
        # Sent before Loki is ready: the collector has to keep them.
        begin = time.time_ns() - 60 * 10**9
        records = [*flows(2000, begin), *updates(begin)]
        send(o_http, records)
        wait("loki", f"http://127.0.0.1:{http}/ready", children[0])
        loki, until, have = Loki(http), time.time() + 60, 0.0
        while have != len(records) and time.time() < until:
            have = sum(loki.table('sum(count_over_time({service_name="flowtel"}[1h]))').values())
            time.sleep(0.5)
        check("every record arrived, once", lambda: equal(have, len(records)))

        asked = re.findall(r"```logql\n(.*?)\n```", (ROOT / "docs/loki.md").read_text(), re.S)
        wanted = expectations(records)
        check("each query of docs/loki.md has its expectation", lambda: equal(len(asked), len(wanted)))
        for query, want in zip(asked, wanted):
            ask = loki.entries if isinstance(want, int) else loki.table
            check(f"docs: {query}", lambda: equal(ask(query), want))

        board = json.loads((ROOT / "config/grafana/dashboards/flowtel.json").read_text())
        for panel in board["panels"]:
            query = panel["targets"][0]["expr"].replace("$host", ".+").replace("$__range", "1h")
            kind = {"instant": "query", "range": "query_range"}[panel["targets"][0]["queryType"]]
            check(f"dashboard: {panel['title']}", lambda: equal(bool(loki.ask(query, kind)), True))
        with urllib.request.urlopen(f"{loki.base}/loki/api/v1/label/host_name/values") as r:
            hosts = json.load(r)["data"]
        check("dashboard: hosts to choose from", lambda: equal(hosts, HOSTS))
    finally:
        end(children)
        if checks.failed == 0 and sys.exc_info()[0] is None: shutil.rmtree(folder)
        else: print(f"logs: {folder}")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
