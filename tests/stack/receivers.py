#!/usr/bin/env python3
"""Asks `flowtel check` about each receiver in the docs, and it must say ok: Loki itself, and a collector by gRPC and by HTTP; and it must
not of a port where nothing is. Needs a built flowtel.
    tests/stack/build.sh otelcol loki && tests/stack/receivers.py
"""
import os, re, subprocess, sys

import servers
from stand import STACK, equal, free_ports, program


def output(flowtel, endpoint, protocol=None):
    """The line about the receiver; others, about the kernel, are not this test's."""
    env = {"PATH": os.environ["PATH"], "NO_COLOR": "1"} | ({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol} if protocol else {})
    done = subprocess.run([flowtel, "check", "--endpoint", endpoint], text=True, capture_output=True, env=env, timeout=120)
    (line,) = re.findall(r"^(\S+)\s+output\s+(.*)$", done.stdout, re.M)
    return line


def main(folder, started, checks):
    built = [p for p in (STACK.parent / b / "flowtel" for b in ("debug", "release")) if p.exists()]
    if not built: return print("skipped: flowtel is not built")
    flowtel = max(built, key=lambda p: p.stat().st_mtime)
    loki = servers.loki(folder)
    started.append(loki)
    collector = servers.Collector(folder, ["loki.yaml", "forward-none.yaml"], [("http://loki:3100", loki.base)])
    started.append(collector.wait())
    loki.wait()
    for what, endpoint, protocol in (("Loki", f"{loki.base}/otlp", None), ("a collector, gRPC", f"http://127.0.0.1:{collector.grpc}", "grpc"),
                                     ("a collector, HTTP", f"http://127.0.0.1:{collector.http}", "http/protobuf")):
        checks.check(f"flowtel check: {what}", lambda: equal(output(flowtel, endpoint, protocol)[0], "ok"))
    (nobody,) = free_ports(1)
    checks.check("flowtel check: nobody", lambda: equal(output(flowtel, f"http://127.0.0.1:{nobody}")[0], "FAIL"))
    checks.check("flowtel check: Loki at a wrong path", lambda: equal(output(flowtel, f"{loki.base}/nowhere")[0], "FAIL"))


if __name__ == "__main__":
    sys.exit(program(main, "otelcol", "loki"))
