#!/usr/bin/env python3
"""Grafana's dashboards and alert rules: their files against the types that Grafana publishes, and each of their queries against a real
Loki and a real Prometheus. Rules must fire where the sample has what they look for, and be silent where it hasn't.

    tests/stack/build.sh otelcol loki grafana prometheus && tests/stack/boards.py
"""
import gzip, http.server, json, os, re, subprocess, sys, threading, time, urllib.parse, urllib.request

import servers
from logql import Loki
from queries import settled
from records import BEGIN, FAILED, SECOND, flat, loopback, story, weight
from servers import Server
from stand import ROOT, STACK, equal, free_ports, program, send, start

GRAFANA = ROOT / "config/grafana"
VARIABLES = {"$host": ".+", "${loopback:raw}": "127[.].*|::1", "$container": ".*", "$program": ".*", "$address": ".*", "$destination": ".*", "$name": ".*",
             "$__range": "1h", "$__auto": "5m", "$__rate_interval": "1m"}
# What one flowtel and one collector say when something is wrong; the names are those of docs/metrics.md and of the collector.
SICK = """flowtel_audit_deaf 1
flowtel_capture_silence_seconds 90
flowtel_export_up 0
flowtel_queue_size_bytes 60
flowtel_queue_capacity_bytes 100
otelcol_exporter_queue_size{exporter="otlp_http/loki"} 100000
otelcol_exporter_queue_capacity{exporter="otlp_http/loki"} 200000
otelcol_exporter_send_failed_log_records_total{exporter="otlp_http/loki"} %(n)d
otelcol_elasticsearch_docs_processed_total{outcome="failed_client",http_response_status_code="400"} %(n)d
otelcol_elasticsearch_docs_processed_total{outcome="failed_client",http_response_status_code="409"} %(n)d
"""
WELL = re.sub(r" \S+$", " 0", SICK.replace("capacity_bytes 100", "capacity_bytes 1"), flags=re.M).replace("up 0", "up 1") \
    .replace("flowtel_queue_capacity_bytes 0", "flowtel_queue_capacity_bytes 100").replace('queue_capacity{exporter="otlp_http/loki"} 0', 'queue_capacity{exporter="otlp_http/loki"} 9')


def filled(query):
    for name, value in VARIABLES.items(): query = query.replace(name, value)
    assert "$" not in query, query
    return query


def panels():
    for file in sorted((GRAFANA / "dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        for p in board["panels"]:
            for t in p["targets"]: yield board["title"], p["title"], t


def rules():
    for group in json.loads((GRAFANA / "provisioning/alerting/flowtel.json").read_text())["groups"]:
        for r in group["rules"]: yield r, r["data"][0]["model"]


# === files

def files(check):
    written = [sys.executable, ROOT / "scripts/grafana/build.py", "--check"]
    check("the files are what scripts/grafana says", lambda: run(written))
    check("dashboards and rules by Grafana's published types, strictly", lambda: run(
        [STACK / "grafana", *(GRAFANA / "dashboards").glob("*.json"), GRAFANA / "provisioning/alerting/flowtel.json"]))
    sources = "".join(f.read_text() for f in (GRAFANA / "provisioning/datasources").glob("*.yaml"))
    used = {t["datasource"]["uid"] for _, _, t in panels()} | {m["datasource"]["uid"] for _, m in rules()}
    check("each data source is provisioned", lambda: equal({u for u in used if f"uid: {u}" not in sources}, set()))
    missing = lambda: {r["uid"] for r, _ in rules() if not (ROOT / f"docs/runbooks/{r['uid']}.md").exists()}
    check("each rule has its runbook", lambda: equal(missing(), set()))
    metrics = (ROOT / "docs/metrics.md").read_text()
    asked = {m for q in [t["expr"] for t in [*(t for _, _, t in panels()), *(m for _, m in rules())] if t["datasource"]["uid"] == "prometheus"] for m in re.findall(r"\b(?:flowtel_\w+_(?:total|bytes|seconds)|otel_sdk_\w+|process_\w+_total)\b", q)}
    check("each metric of flowtel's is in docs/metrics.md", lambda: equal({m for m in asked if f"`{m}`" not in metrics}, set()))


def run(command):
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


# === Loki

FIRES = {"flowtel-not-allowed": None, "flowtel-refused-storm": {"worker"}, "flowtel-scan": {"nmap"}, "flowtel-handshake-jump": None, "flowtel-gap": {"flows_ring_full"}}


def flows(check, loki, records):
    rows = flat(records)
    far = [f for f in rows if "source.address" in f and not loopback(f)]
    exact = {("flowtel: Overview", "Connections"): sum(f["event"] == BEGIN and f["flowtel.flow.direction"] == "outgoing" for f in far),
             ("flowtel: Overview", "Failed attempts"): sum(weight(f) for f in far if f["event"] == FAILED),
             ("flowtel: Overview", "Events known to be lost"): 7}
    for board, title, target in panels():
        if target["datasource"]["uid"] != "loki": continue
        query, kind = filled(target["expr"]), {"instant": "query", "range": "query_range"}[target["queryType"]]
        more = {"step": "300"} if kind == "query_range" and not query.startswith("{") else {}
        found = []
        check(f"{board}: {title}, {target['refId']}", lambda: equal(bool(found.extend(loki.ask(query, kind, **more)) or found), True))
        if (want := exact.get((board, title))) is not None:
            check(f"  … says {want}", lambda: equal([float(r["value"][1]) for r in found], [float(want)]))
    calm = Loki(loki.base, loki.now - 900 * SECOND)
    for rule, model in rules():
        if model["datasource"]["uid"] != "loki": continue
        def fires():
            rows = loki.ask(model["expr"])
            want = FIRES[rule["uid"]]
            equal(bool(rows), True)
            if want: equal({v for r in rows for v in r["metric"].values()} & want, want)
            if rule["uid"] == "flowtel-handshake-jump": equal({r["metric"]["destination_address"] for r in rows}, {"140.82.121.4"})
            if want and rule["uid"] != "flowtel-gap": equal(len(rows), 1)
        check(f"rule fires: {rule['title']}", fires)
        if rule["uid"] != "flowtel-not-allowed": check("  … and is silent a quarter of an hour before", lambda: equal(calm.ask(model["expr"]), []))


# === Prometheus

class Said(http.server.BaseHTTPRequestHandler):
    """Answers /sick and /well with made-up figures; those that count grow. Takes what the collector sends to Prometheus."""
    scrapes, taken = 0, {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip": body = gzip.decompress(body)
        Said.taken[self.path] = Said.taken.get(self.path, b"") + body
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        Said.scrapes += 1
        body = ((SICK % {"n": Said.scrapes * 10}) if self.path == "/sick" else WELL).encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): pass


class Prometheus(Server):
    def __init__(self, folder, targets):
        (port,) = free_ports(1)
        jobs = "".join(f"- {{job_name: {name}, metrics_path: {path}, static_configs: [{{targets: ['{address}']}}]}}\n" for name, (address, path) in targets.items())
        (folder / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}")
        super().__init__(start("prometheus", [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address=127.0.0.1:{port}"], folder),
                         f"http://127.0.0.1:{port}", "-/ready")

    def ask(self, query):
        with urllib.request.urlopen(f"{self.base}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=120) as r: return json.load(r)["data"]["result"]


def flowtel(folder, collector):
    """A real flowtel with its metrics, where it may run here; else None."""
    for built in ("release", "debug"):
        program_ = STACK.parent / built / "flowtel"
        if os.getuid() != 0 or not program_.exists(): continue
        (port,) = free_ports(1)
        env = {"PATH": os.environ["PATH"], "FLOWTEL_TELEMETRY__ADMIN__ADDRESS": f"127.0.0.1:{port}",
               "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
               "FLOWTEL_TELEMETRY__METRICS__ENABLED": "true", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        log = open(folder / "flowtel.log", "w")
        child = subprocess.Popen([program_], env=env, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL)
        return Server(child, f"http://127.0.0.1:{port}", "metrics")
    return None


def metrics(check, folder, started, collector, answers):
    said = f"127.0.0.1:{answers.server_port}"
    targets = {"sick": (said, "/sick"), "well": (said, "/well"), "otelcol": (f"127.0.0.1:{collector.metrics}", "/metrics")}
    if real := flowtel(folder, collector):
        started.append(real.wait(60))
        targets["flowtel"] = (real.base.removeprefix("http://"), "/metrics")
    else: print("skipped: panels of flowtel's own metrics: flowtel isn't built, or this is not root")
    started.append(Prometheus(folder, targets))
    prometheus = started[-1].wait()
    time.sleep(20)
    for rule, model in rules():
        if model["datasource"]["uid"] != "prometheus": continue
        for job, want in (("sick", True), ("well", False)):
            # A rule's sums have no label of the job, so each is asked of its job alone.
            query = re.sub(r"\b((?:flowtel|otelcol)_\w+)\b(?!\()(\{)?", lambda m: f'{m[1]}{{job="{job}"' + ("," if m[2] else "}"), model["expr"]) \
                if "__name__" not in model["expr"] else re.sub(r"\bflowtel_capture_silence_seconds\b", f'flowtel_capture_silence_seconds{{job="{job}"}}', model["expr"].replace("{__name__", f'{{job="{job}",__name__'))
            check(f"rule {'fires' if want else 'is silent'} where all is {job}: {rule['title']}", lambda: equal(bool(prometheus.ask(query)), want))
    for board, title, target in panels():
        if target["datasource"]["uid"] != "prometheus" or not real: continue
        query = filled(target["expr"])
        check(f"{board}: {title}, {target['refId']}", lambda: equal(bool(prometheus.ask(query)), True))
    if real: check("flowtel's metrics go by the collector to Prometheus's OTLP receiver", lambda: equal(
        b"flowtel.audit.deaf" in Said.taken.get("/api/v1/otlp/v1/metrics", b""), True))
    answers.shutdown()


def main(folder, started, checks):
    files(checks.check)
    store = servers.loki(folder)
    started.append(store)
    answers = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Said)
    threading.Thread(target=answers.serve_forever, daemon=True).start()
    collector = servers.Collector(folder, ["loki.yaml", "forward-none.yaml"], [
        ("http://loki:3100", store.base), ("http://prometheus:9090", f"http://127.0.0.1:{answers.server_port}")])
    started.append(collector.wait())
    now = time.time_ns() // SECOND * SECOND
    records = story(now)
    send(collector.http, records)
    loki = Loki(store.wait().base, now)
    checks.check("every record arrived, once", lambda: equal(settled(loki, len(records)), len(records)))
    flows(checks.check, loki, records)
    metrics(checks.check, folder, started, collector, answers)


if __name__ == "__main__":
    sys.exit(program(main, "otelcol", "loki", "grafana", "prometheus"))
