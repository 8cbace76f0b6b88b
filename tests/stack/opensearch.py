#!/usr/bin/env python3
"""Asks a real OpenSearch, behind a real collector, what docs/elastic.md asks: its template, and the collector's settings for it.

Needs Java 17, and of Python only its library.
    tests/stack/build.sh otelcol opensearch && tests/stack/opensearch.py
"""
import json, sys, time

import esapi, servers
from esapi import STREAM, Elastic, setup, stamp
from records import SECOND, story
from stand import ROOT, equal, program, send


def leaves(properties, at=""):
    for name, value in properties.items():
        if "properties" in value: yield from leaves(value["properties"], f"{at}{name}.")
        else: yield f"{at}{name}", value


def mapping(name):
    """Field → what it is, without the folders."""
    properties = json.loads((ROOT / f"config/elastic/{name}.json").read_text())["template"]["mappings"]["properties"]
    return {k: v for k, v in leaves(properties)}


def main(folder, started, checks):
    check = checks.check
    elastic, ours = mapping("template"), mapping("template-opensearch")
    check("its template has each field of Elasticsearch's, as the same type", lambda: equal({k: ours.get(k) for k in elastic}, elastic))
    started.append(servers.opensearch(folder))
    es = Elastic(started[0].wait().base)
    for again in (1, 2):
        done = setup(es.base, FLOWTEL_STORE="opensearch")
        check(f"setup, run {again}", lambda: equal((done.returncode, "setup: done" in done.stdout), (0, True)))
    refused = setup(es.base, FLOWTEL_STORE="opensearch", FLOWTEL_RETENTION="30d")
    check("setup says that a retention is not OpenSearch's way", lambda: equal((refused.returncode, "ISM" in refused.stderr), (64, True)))
    collector = servers.Collector(folder, ["elastic.yaml", "elastic-opensearch.yaml"], [("http://elasticsearch:9200", es.base)])
    started.append(collector.wait())
    records = story(time.time_ns() // SECOND * SECOND)
    send(collector.http, records)
    check("every record arrived, once", lambda: equal(es.settle(len(records)), len(records)))
    want = {r["attributes"]["log.record.uid"]: stamp(r["time"]) for r in records}
    found = es.documents(STREAM, [{"field": "@timestamp", "format": "strict_date_optional_time_nanos"}])
    check("each stamp is the record's, to the nanosecond", lambda: equal({i for i, f in found.items() if f["@timestamp"] != [want[i]]}, set()))
    send(collector.http, records[:500])
    time.sleep(4)
    es.ask(f"{STREAM}/_refresh", method="POST")
    check("a request that is sent again makes no second document", lambda: equal(es.count(), len(records)))
    esapi.ask_all(check, es.base, records)
    es.ask(f"{STREAM}/_forcemerge?max_num_segments=1", method="POST")
    size = es.ask(f"{STREAM}/_stats/store,docs")["_all"]["primaries"]
    print(f"size: {size['store']['size_in_bytes'] / size['docs']['count']:.0f} bytes a document")


if __name__ == "__main__":
    sys.exit(program(main, "otelcol", "opensearch"))
