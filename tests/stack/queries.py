#!/usr/bin/env python3
"""Asks a real Loki, behind a real collector, what docs/loki.md asks, and compares with what was sent and with the page.

A second Loki with stock settings is asked the same, as the page says to. Starts target/stack/otelcol and target/stack/loki with
the shipped configurations. With --write the outputs in the page are made anew.
    tests/stack/build.sh otelcol loki && tests/stack/queries.py [--write]
"""
import collections, json, sys, time, urllib.parse, urllib.request

import logql
from logql import Loki
from records import BEGIN, END, FAILED, GAP, HELLO, HOUR, SCANNED, SECOND, flat, loopback, story, weight, within
from servers import Collector, loki
from stand import equal, program, send

def expectations(records, now):
    """Each query of docs/loki.md, in its order, with what it must find: a number of lines or a table."""
    rows = flat(records)
    out = [f for f in rows if f.get("flowtel.flow.direction") == "outgoing" and not loopback(f)]
    begins, ends, failed = ([f for f in out if f["event"] == e] for e in (BEGIN, END, FAILED))
    tried = begins + failed
    private, names = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], "flowtel.destination.dns.names"
    def last(rows, seconds): return [f for f in rows if f["time"] > now - seconds * SECOND]
    def text(v): return json.dumps(v, separators=(",", ":")) if isinstance(v, list) else "" if v is None else str(v)
    def key(f, keys):
        # Loki leaves an absent label out of the answer; labels come sorted by name.
        return tuple(x for x in (text(f.get(k)) for k in sorted(keys, key=lambda k: k.replace(".", "_"))) if x)
    def add(rows, keys, value=lambda f: 1):
        total = collections.defaultdict(float)
        for f in rows: total[key(f, keys)] += value(f)
        return dict(total)
    def top(table, n, down=True): return dict(sorted(table.items(), key=lambda x: -x[1] if down else x[1])[:n])
    def percentile(q, rows):
        shakes = sorted(f["flowtel.tcp.handshake.duration"] for f in rows)
        at = q * (len(shakes) - 1)
        low = int(at)
        return shakes[low] + (shakes[min(low + 1, len(shakes) - 1)] - shakes[low]) * (at - low)
    before = {f["destination.address"] for f in tried if f["time"] <= now - 600 * SECOND}
    refused = [f for f in last(failed, 300) if f["error.type"] == "refused"]
    process = ("host.name", "process.executable.name", "process.pid")
    tried_by = collections.defaultdict(set)
    for f in last(failed, 300): tried_by[key(f, process)].add((f["destination.address"], f["destination.port"]))
    return [
        add([f for f in begins if f["destination.port"] != 443 and not within(f, "destination", *private)],
            ("host.name", "destination.address", "destination.port", names)),
        add([f for f in last(tried, 600) if f["destination.address"] not in before and not within(f, "destination", "10.9.0.0/16")], ("destination.address",)),
        top(add(begins, ("destination.address",)), 3, down=False),
        sum(names not in f for f in begins),
        sum(within(f, "source", "10.0.200.0/24") or within(f, "destination", "10.0.200.0/24") for f in rows),
        sum(within(f, "destination", "2001:db8::/32") for f in rows),
        sum("container.id" in f for f in rows),
        add([f for f in begins if "example.com" in f.get(names, [])], ("host.name", "process.executable.name")),
        top(add(begins, ("process.executable.name",)), 3),
        top(add(ends, ("destination.address",), lambda f: f["flowtel.source.bytes"]), 3),
        add([f for f in out if "flowtel.delta.source.bytes" in f], ("destination.address",), lambda f: f["flowtel.delta.source.bytes"]),
        add([f for f in out if f["event"] == HELLO], ("flowtel.tls.server_name", "flowtel.tls.ja4")),
        {(h,): percentile(0.95, [f for f in begins if f["host.name"] == h]) for h in ("node-1", "node-2")},
        sum(f["flowtel.tcp.handshake.duration"] > 0.2 for f in rows if f["event"] == BEGIN),
        add([f for f in rows if f["event"] == FAILED and not loopback(f)], ("error.type",), weight),
        {k: v for k, v in add(refused, ("host.name", "process.executable.name", "destination.address", "destination.port"), weight).items() if v > 100},
        {k: float(len(v)) for k, v in tried_by.items() if len(v) > 50},
        add([f for f in rows if f["event"] == GAP], ("host.name", "flowtel.gap.stage", "flowtel.gap.reason"), lambda f: f["flowtel.gap.events"]),
    ]


def near(got, want):
    """Tables are alike up to rounding; where many rows are as large, which of them are shown is not asked."""
    if isinstance(want, int): return equal(got, want)
    equal(sorted(round(v, 9) for v in got.values()), sorted(round(v, 9) for v in want.values()))
    if len(set(want.values())) == len(want): equal(set(got), set(want))


def settled(loki, want):
    have, until = 0.0, time.time() + 300
    while have != want and time.time() < until:
        have = sum(loki.table('sum(count_over_time({service_name="flowtel"}[1h]))').values())
        time.sleep(0.5)
    return have


def main(folder, servers, checks):
    check = checks.check
    for name in ("shipped", "stock"): (folder / name).mkdir()
    shipped, stock = loki(folder / "shipped"), loki(folder / "stock", stock=True)
    servers += [shipped, stock]
    collectors = []
    for name, base in (("shipped", shipped.base), ("stock", stock.base)):
        collectors.append(Collector(folder / name, ["loki.yaml", "forward-none.yaml"], [("http://loki:3100", base)]))
        servers.append(collectors[-1].wait())
    # Sent before Loki is ready: the collector has to keep them.
    now = time.time_ns() // SECOND * SECOND
    records = story(now)
    for c in collectors: send(c.http, records)
    asked, wanted = logql.asked(), expectations(records, now)
    check("each query of docs/loki.md has its expectation", lambda: equal(len(asked), len(wanted)))
    outputs = []
    for what, server in (("shipped", shipped), ("stock", stock)):
        loki_ = Loki(server.wait().base, now)
        check(f"{what}: every record arrived, once", lambda: equal(settled(loki_, len(records)), len(records)))
        for (query, output), want in zip(asked, wanted):
            if what == "stock":
                query = logql.stock(query)
                if counts_the_scan(query):
                    check(f"stock: stops at 500 series, as the page says: {query}", lambda: refused(loki_, query))
                    continue
            ask = (lambda q: len(loki_.lines(q))) if isinstance(want, int) else loki_.table
            check(f"{what}: {query}", lambda: near(ask(query), want))
            if what == "shipped":
                outputs.append(loki_.answer(query))
                if "--write" not in sys.argv: check("  … and its output is the page's", lambda: equal(outputs[-1], output))
    check("streams: one for each host and event, however many flows there are", lambda: equal(
        len(streams(shipped.base, now)), len({(r["host"], r["event"]) for r in records})))
    if "--write" in sys.argv: logql.write(outputs)


def streams(base, now):
    query = urllib.parse.urlencode({"match[]": '{service_name="flowtel"}', "start": now - HOUR, "end": now})
    with urllib.request.urlopen(f"{base}/loki/api/v1/series?{query}", timeout=120) as r: return {tuple(sorted(s.items())) for s in json.load(r)["data"]}


def counts_the_scan(query):
    """Whether it counts failures by destination: the scan has more of those than stock Loki's limit of series."""
    return "flow.failed" in query and "destination_port" in query


def refused(loki, query):
    try: found = loki.table(query)
    except AssertionError as e: return equal("maximum number of series (500) reached" in str(e), True)
    raise AssertionError(f"found {found}, though the scan has {SCANNED} destinations")


if __name__ == "__main__":
    sys.exit(program(main, "otelcol", "loki"))
