#!/usr/bin/env python3
"""Checks config/kibana/flowtel.ndjson, as far as that goes without a Kibana: the form of each saved object by a JSON schema written from
Kibana's own types, references that lead somewhere, and fields that the index template has. Needs python3-jsonschema.
    tests/stack/kibana.py
"""
import json, re, subprocess, sys

from opensearch import mapping
from stand import ROOT, Checks, equal

FILE = ROOT / "config/kibana/flowtel.ndjson"
TEXT, META = {"type": "string"}, {"type": "object", "required": ["searchSourceJSON"], "properties": {"searchSourceJSON": {"type": "string"}}}


def attributes(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


# By kind, from Kibana 8.19's src/plugins/*/server/*/schema: what it takes, and nothing else.
KINDS = {
    "index-pattern": attributes(["title", "timeFieldName"], title=TEXT, name=TEXT, timeFieldName=TEXT, fields=TEXT, fieldAttrs=TEXT, fieldFormatMap=TEXT,
                                runtimeFieldMap=TEXT, sourceFilters=TEXT, typeMeta=TEXT, allowNoIndex={"type": "boolean"}),
    "search": attributes(["title", "columns", "sort", "kibanaSavedObjectMeta"], title=TEXT, description=TEXT, columns={"type": "array", "items": TEXT},
                         sort={"type": "array", "items": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2}}, grid={"type": "object"},
                         hideChart={"type": "boolean"}, isTextBasedQuery={"type": "boolean"}, kibanaSavedObjectMeta=META),
    "visualization": attributes(["title", "visState", "kibanaSavedObjectMeta"], title=TEXT, description=TEXT, version={"type": "integer"}, uiStateJSON=TEXT,
                                visState=TEXT, kibanaSavedObjectMeta=META),
    "dashboard": attributes(["title", "panelsJSON", "kibanaSavedObjectMeta"], title=TEXT, description=TEXT, version={"type": "integer"}, timeRestore={"type": "boolean"},
                            timeFrom=TEXT, timeTo=TEXT, panelsJSON=TEXT, optionsJSON=TEXT, kibanaSavedObjectMeta=META,
                            refreshInterval={"type": "object", "required": ["pause", "value"], "properties": {"pause": {"type": "boolean"}, "value": {"type": "integer"}}}),
}
OBJECT = {"type": "object", "required": ["id", "type", "attributes", "references", "coreMigrationVersion", "typeMigrationVersion"],
          "properties": {"id": TEXT, "type": {"enum": list(KINDS)}, "attributes": {"type": "object"}, "managed": {"type": "boolean"}, "coreMigrationVersion": TEXT, "typeMigrationVersion": TEXT,
                         "references": {"type": "array", "items": {"type": "object", "required": ["name", "type", "id"], "properties": {"name": TEXT, "type": TEXT, "id": TEXT}, "additionalProperties": False}}},
          "additionalProperties": False}


def fields(o):
    """Each field that an object asks for."""
    a = o["attributes"]
    if "kibanaSavedObjectMeta" in a: yield from re.findall(r"([\w.]+): ", json.loads(a["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["query"])
    yield from a.get("columns", [])
    yield from (g["params"]["field"] for g in json.loads(a["visState"])["aggs"] if "field" in g["params"]) if "visState" in a else ()


def references(o):
    """Names that the object's own text refers by."""
    a = o["attributes"]
    if "kibanaSavedObjectMeta" in a:
        if name := json.loads(a["kibanaSavedObjectMeta"]["searchSourceJSON"]).get("indexRefName"): yield name
    yield from (f"{p['panelIndex']}:{p['panelRefName']}" for p in json.loads(a.get("panelsJSON", "[]")))


def main():
    try: import jsonschema
    except ImportError:
        print("skipped: Kibana's objects: python3-jsonschema is not here\n0 passed, 0 failed, 1 skipped")
        return 0
    checks = Checks()
    check = checks.check
    found = [json.loads(line) for line in FILE.read_text().splitlines()]
    check("the file is what scripts/kibana.py says", lambda: subprocess.run([sys.executable, ROOT / "scripts/kibana.py", "--check"], check=True))
    known = {(o["type"], o["id"]) for o in found}
    check("no object is there twice", lambda: equal(len(known), len(found)))
    # The mapping of OpenSearch names each field without its prefix; Elasticsearch has the rest by passthrough.
    names = set(mapping("template-opensearch")) | {k.removeprefix("attributes.") for k in mapping("template")}
    for o in found:
        def whole():
            jsonschema.validate(o, OBJECT)
            jsonschema.validate(o["attributes"], KINDS[o["type"]])
        check(f"{o['type']} {o['id']}: its form", whole)
        check(f"{o['type']} {o['id']}: each reference is used, and leads somewhere", lambda: equal(
            ({r["name"] for r in o["references"]}, {(r["type"], r["id"]) for r in o["references"]} - known), (set(references(o)), set())))
        check(f"{o['type']} {o['id']}: each field is there", lambda: equal(set(fields(o)) - names - {"flowtel.gap.reason"}, set()))
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
