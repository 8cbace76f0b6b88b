#!/usr/bin/env python3
"""Are the records that stores are tested with such as flowtel makes? Each shape of the sample against schema/log-record.schema.json,
which the program itself writes. Needs python3-jsonschema.
    tests/stack/sample.py
"""
import json, sys

from records import SECOND, story
from stand import ROOT, Checks, equal, otlp


def shapes(records):
    """One record of each set of attributes."""
    return {(r["event"], *sorted(r["attributes"])): r for r in records}.values()


def main():
    try: import jsonschema
    except ImportError:
        print("skipped: the sample: python3-jsonschema is not here\n0 passed, 0 failed, 1 skipped")
        return 0
    schema = json.loads((ROOT / "schema/log-record.schema.json").read_text())
    validator, checks = jsonschema.Draft202012Validator(schema), Checks()
    for r in shapes(story(1_800_000_000 * SECOND)):
        (whole,) = otlp([r])["resourceLogs"]
        (record,) = whole["scopeLogs"][0]["logRecords"]
        wrong = jsonschema.exceptions.best_match(validator.iter_errors(record))
        checks.check(f"{r['event']} with {len(r['attributes'])} attributes", lambda: equal(wrong and wrong.message[:500], None))
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
