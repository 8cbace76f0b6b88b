#!/usr/bin/env python3
"""Writes Grafana's dashboards and alert rules into config/grafana (make docs). With --check it only says whether they are up to date."""
import json, pathlib, sys

import alerts, flows, health

OUT = pathlib.Path(__file__).resolve().parents[2] / "config/grafana"
FILES = {"dashboards/flowtel.json": flows.overview, "dashboards/destinations.json": flows.destinations, "dashboards/history.json": flows.history,
         "dashboards/health.json": health.health, "provisioning/alerting/flowtel.json": alerts.alerts}


def main():
    stale = []
    for name, make in FILES.items():
        file, text = OUT / name, json.dumps(make(), indent=1) + "\n"
        if file.exists() and file.read_text() == text: continue
        stale.append(name)
        if "--check" not in sys.argv:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    if "--check" in sys.argv and stale: sys.exit(f"make docs: these are not what scripts/grafana says: {', '.join(stale)}")


if __name__ == "__main__":
    main()
