#!/usr/bin/env python3
"""Asks a real Elasticsearch, behind a real collector, what docs/elastic.md asks, and compares with what was sent.

Puts component templates of the shape of Elastic's own first, then runs config/elastic/setup.sh twice. Needs Java 17, and of
Python only its library. With --write the outputs in the page are made anew.
    tests/stack/build.sh otelcol elasticsearch && tests/stack/elastic.py [--write]
"""
import sys, time

import esapi, servers
from esapi import ECS, STREAM, Elastic, setup, stamp
from records import END, SECOND, story
from stand import equal, program, send

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


def main(folder, started, checks):
    check = checks.check
    started.append(servers.elasticsearch(folder))
    base = started[0].wait().base
    es = Elastic(base)
    prepare(check, es)
    files = ["elastic.yaml", "elastic-ecs.yaml"]
    collector = servers.Collector(folder, files, [("http://elasticsearch:9200", base)])
    started.append(collector.wait())
    records = story(time.time_ns() // SECOND * SECOND)
    send(collector.http, records)
    check("every record arrived, once", lambda: equal(es.settle(len(records)), len(records)))
    check("and once more as an ECS document", lambda: equal(es.settle(len(records), ECS), len(records)))
    stamps(check, es, {r["attributes"]["log.record.uid"]: r for r in records})

    # A copy makes no second document.
    send(collector.http, records[:500])
    time.sleep(4)
    es.ask(f"{STREAM}/_refresh", method="POST")
    check("a request that is sent again makes no second document", lambda: equal(es.count(), len(records)))

    outputs = esapi.ask_all(check, base, records, "--write" not in sys.argv)
    names(check, es)
    whole(check, es)

    # One id is unique within a backing index alone: the docs say so, and how to count all the same.
    es.ask(f"{STREAM}/_rollover", method="POST")
    send(collector.http, records[:300])
    check("after a rollover a copy is a second document", lambda: equal(es.settle(len(records) + 300), len(records) + 300))
    check("and the query for distinct ids counts it once", lambda: equal(esapi.single(esapi.run(base, esapi.commands()[-1][1])), len(records)))
    es.ask(f"{STREAM}/_forcemerge?max_num_segments=1", method="POST")
    size = es.ask(f"{STREAM}/_stats/store,docs")["_all"]["primaries"]
    print(f"size: {size['store']['size_in_bytes'] / size['docs']['count']:.0f} bytes a document")
    if "--write" in sys.argv: esapi.write(outputs)


def prepare(check, es):
    for name, template in STOCK.items(): es.ask(f"_component_template/{name}", template, "PUT")
    for again in (1, 2):
        done = setup(es.base, FLOWTEL_RETENTION="30d")
        check(f"setup beside Elastic's own templates, run {again}", lambda: equal((done.returncode, "documents are kept 30d" in done.stdout), (0, True)))
    wrong = setup(es.base, FLOWTEL_RETENTION='30d"')
    check("setup refuses a retention that is none, in words", lambda: equal((wrong.returncode, "expected a time" in wrong.stderr), (64, True)))


def stamps(check, es, want):
    # Shipped as they are, stamps of the exporter's own form were up to a millisecond late.
    form = [{"field": "@timestamp", "format": "strict_date_optional_time_nanos"}]
    for stream in (STREAM, ECS):
        found = es.documents(stream, form)
        check(f"{stream}: each stamp is the record's, to the nanosecond",
              lambda: equal({i for i, f in found.items() if f["@timestamp"] != [stamp(want[i]["time"])]}, set()))
    spans = es.documents(STREAM, ["event.start", "event.end", "event.duration", "event_name"])
    ends = {i: f for i, f in spans.items() if f["event_name"] == [END]}
    check("no flow ends before it begins, and its start is that of its begin", lambda: equal(
        {i for i, f in ends.items() if f["event.start"] != [stamp(want[i[:30] + "b0"]["time"])]}, set()))


# Names that answer alike, and a value that both find.
BOTH = [("source.ip", "attributes.source.address", "10.0.0.0/8"), ("destination.ip", "attributes.destination.address", "2001:db8::/32"),
        ("destination.domain", "attributes.flowtel.destination.dns.names", "github.com"), ("process.name", "process.executable.name", "curl"),
        ("user.id", "attributes.process.real_user.id", 1001), ("network.direction", "attributes.network.direction", "egress"),
        ("event.action", "attributes.event.action", "flow-failed"), ("network.community_id", "attributes.flowtel.flow.community_id", f"1:{8:027d}="),
        ("source.bytes", "attributes.flowtel.source.bytes", None), ("destination.packets", "attributes.flowtel.destination.packets", None)]


def names(check, es):
    for ecs, otel, value in BOTH:
        def number(field):
            query = {"exists": {"field": field}} if value is None else {"term": {field: value}}
            return es.ask(f"{STREAM}/_count", {"query": query})["count"]
        check(f"{ecs} answers as {otel} does", lambda: equal((number(ecs), number(ecs) > 0), (number(otel), True)))


def whole(check, es):
    fields = ["ecs.version", "event.kind", "event.category", "event.type", "event.duration", "source.bytes", "user.id", "elastic.mapping.mode"]
    ends = [f for i, f in es.documents(ECS, fields).items() if i.endswith("e0")]
    check("ECS documents are whole, and nothing of the collector's is left in them", lambda: equal(
        [f for f in ends if f.get("ecs.version") != ["8.17.0"] or "event.duration" not in f or "source.bytes" not in f or "user.id" not in f
         or "elastic.mapping.mode" in f or f.get("event.category") != ["network"]], []))


if __name__ == "__main__":
    sys.exit(program(main, "otelcol", "elasticsearch"))
