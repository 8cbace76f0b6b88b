#!/usr/bin/env python3
"""Writes config/kibana/flowtel.ndjson: a data view, a search with columns, and a dashboard, as Kibana 8.19 imports them (make docs).
With --check it only says whether the file is up to date."""
import json, pathlib, sys

OUT = pathlib.Path(__file__).resolve().parents[1] / "config/kibana/flowtel.ndjson"
VIEW = "flowtel"
FAR = 'not source.ip: "127.0.0.0/8" and not source.ip: "::1"'
BEGIN = f'event.action: "flow-begin" and network.direction: "egress" and {FAR}'
FAILED = f'event.action: "flow-failed" and network.direction: "egress" and {FAR}'
END = f'event.action: "flow-end" and network.direction: "egress" and {FAR}'
COLUMNS = ["event.action", "network.direction", "host.name", "process.name", "source.ip", "destination.ip", "destination.port", "destination.domain",
           "flowtel.flow.duration", "flowtel.flow.end.reason", "error.type"]
SOURCE = "kibanaSavedObjectMeta.searchSourceJSON.index"


def saved(kind, id, version, attributes, references=()):
    return {"id": id, "type": kind, "attributes": attributes, "references": list(references), "managed": False,
            "coreMigrationVersion": "8.8.0", "typeMigrationVersion": version}


def source(query):
    text = {"query": {"query": query, "language": "kuery"}, "filter": [], "indexRefName": SOURCE}
    return {"searchSourceJSON": json.dumps(text)}


def view(): return {"name": SOURCE, "type": "index-pattern", "id": VIEW}


def count(): return {"id": "1", "enabled": True, "type": "count", "params": {}, "schema": "metric"}


def metric(kind, field, **params): return {"id": "1", "enabled": True, "type": kind, "params": {"field": field, **params}, "schema": "metric"}


def terms(id, field, size=20):
    params = {"field": field, "size": size, "order": "desc", "orderBy": "1", "otherBucket": False, "missingBucket": False}
    return {"id": id, "enabled": True, "type": "terms", "params": params, "schema": "bucket"}


def over_time(group=None):
    time = {"id": "2", "enabled": True, "type": "date_histogram", "schema": "segment",
            "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 1, "useNormalizedEsInterval": True, "drop_partials": False, "extended_bounds": {}}}
    return [time] + ([terms("3", group, 10) | {"schema": "group"}] if group else [])


def drawing(id, title, kind, query, aggregations, params):
    """An aggregation-based visualization: its form has been the same since Kibana 7, and needs no Lens."""
    state = {"title": title, "type": kind, "aggs": aggregations, "params": params}
    return saved("visualization", id, "8.5.0", {"title": title, "description": "", "version": 1, "uiStateJSON": "{}", "visState": json.dumps(state),
                                                "kibanaSavedObjectMeta": source(query)}, [view()])


def table(id, title, query, what, *buckets):
    return drawing(id, title, "table", query, [what, *buckets], {"perPage": 10, "showPartialRows": False, "showMetricsAtAllLevels": False,
                                                                "showTotal": False, "totalFunc": "sum", "percentageCol": ""})


def bars(id, title, query, group):
    axis = [{"id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left", "show": True, "style": {}, "scale": {"type": "linear", "mode": "normal"},
             "labels": {"show": True, "rotate": 0, "filter": False, "truncate": 100}, "title": {"text": "Connections"}}]
    series = [{"show": True, "type": "histogram", "mode": "stacked", "data": {"id": "1", "label": "Count"}, "valueAxis": "ValueAxis-1", "drawLinesBetweenPoints": True,
               "lineWidth": 2, "showCircles": True}]
    category = [{"id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": True, "style": {}, "scale": {"type": "linear"},
                 "labels": {"show": True, "filter": True, "truncate": 100}, "title": {}}]
    return drawing(id, title, "histogram", query, [count(), *over_time(group)], {
        "type": "histogram", "grid": {"categoryLines": False}, "categoryAxes": category, "valueAxes": axis, "seriesParams": series, "addTooltip": True,
        "addLegend": True, "legendPosition": "right", "times": [], "addTimeMarker": False, "labels": {"show": False}, "thresholdLine": {"show": False}})


DRAWINGS = [
    bars("flowtel-begins", "flowtel: Connections by program", BEGIN, "process.name"),
    bars("flowtel-failures", "flowtel: Failed attempts by cause", FAILED, "error.type"),
    table("flowtel-destinations", "flowtel: Destinations", BEGIN, count(), terms("2", "destination.ip"), terms("3", "process.name", 5)),
    table("flowtel-bytes", "flowtel: Where the most bytes go", END, metric("sum", "source.bytes"), terms("2", "destination.ip")),
    table("flowtel-handshakes", "flowtel: Handshakes, 95th percentile", BEGIN, metric("percentiles", "flowtel.tcp.handshake.duration", percents=[95]),
          terms("2", "destination.ip") | {"params": {"field": "destination.ip", "size": 20, "order": "desc", "orderBy": "1.95", "otherBucket": False, "missingBucket": False}}),
    table("flowtel-gaps", "flowtel: What is known to be missing", 'event_name: "flowtel.gap"', metric("sum", "flowtel.gap.events"), terms("2", "flowtel.gap.reason")),
]


def objects():
    search = {"title": "flowtel: Flows", "description": "", "columns": COLUMNS, "sort": [["@timestamp", "desc"]], "grid": {}, "hideChart": False,
              "isTextBasedQuery": False, "kibanaSavedObjectMeta": source("")}
    yield saved("index-pattern", VIEW, "8.0.0", {"title": "logs-flowtel.otel-*", "name": "flowtel", "timeFieldName": "@timestamp", "fields": "[]", "fieldAttrs": "{}",
                                                 "fieldFormatMap": json.dumps({"source.bytes": {"id": "bytes"}, "destination.bytes": {"id": "bytes"}}),
                                                 "runtimeFieldMap": "{}", "sourceFilters": "[]", "typeMeta": "{}"})
    yield saved("search", "flowtel-flows", "10.5.0", search, [view()])
    yield from DRAWINGS
    shown = [("visualization", d["id"]) for d in DRAWINGS] + [("search", "flowtel-flows")]
    panels, references = [], []
    for i, (kind, id) in enumerate(shown):
        last = kind == "search"
        place = {"x": 0 if last else i % 2 * 24, "y": i // 2 * 15, "w": 48 if last else 24, "h": 20 if last else 15, "i": str(i)}
        panels.append({"type": kind, "gridData": place, "panelIndex": str(i), "embeddableConfig": {"enhancements": {}}, "panelRefName": f"panel_{i}"})
        references.append({"name": f"{i}:panel_{i}", "type": kind, "id": id})
    yield saved("dashboard", "flowtel", "10.2.0", {
        "title": "flowtel", "description": "What connects, what fails, where bytes go", "version": 1, "timeRestore": True, "timeFrom": "now-1h", "timeTo": "now",
        "refreshInterval": {"pause": True, "value": 60000}, "panelsJSON": json.dumps(panels), "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps({"query": {"query": "", "language": "kuery"}, "filter": []})}}, references)


def main():
    text = "".join(json.dumps(o) + "\n" for o in objects())
    if OUT.exists() and OUT.read_text() == text: return
    if "--check" in sys.argv: sys.exit("make docs: config/kibana/flowtel.ndjson is not what scripts/kibana.py says")
    OUT.write_text(text)


if __name__ == "__main__":
    main()
