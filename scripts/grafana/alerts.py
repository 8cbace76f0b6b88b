"""The alert rules. Each has a runbook, docs/runbooks/UID.md."""
from health import DEAF, UP
from panels import LOKI, N, PROMETHEUS

RUNBOOKS = "https://github.com/flowtel/flowtel/blob/main/docs/runbooks"
FAR = '| flowtel_flow_direction="outgoing" | source_address!~"127[.].*|::1"'
BEGIN, FAILED, GAP = (f'{{service_name="flowtel", event_name="flowtel.{e}"}}' for e in ("tcp.flow.begin", "tcp.flow.failed", "gap"))
PRIVATE = " ".join(f'| destination_address!=ip("{n}")' for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"))
PROCESS = "host_name, process_executable_name, process_pid"
SHAKE = "| unwrap flowtel_tcp_handshake_duration"


def slow(window, more=""): return f"quantile_over_time(0.95, {BEGIN} {FAR} {SHAKE} [{window}]{more}) by (host_name, destination_address)"


# uid, title, source, query (each row it finds fires), how long, severity, what it says, paused
RULES = [
    ("flowtel-not-allowed", "Destination outside the allow list", LOKI,
     f"sum by (host_name, process_executable_name, destination_address, destination_port) (count_over_time({BEGIN} {FAR} {PRIVATE} | destination_port!=443 [5m]))",
     "0s", "warning", "{{ $labels.process_executable_name }} on {{ $labels.host_name }} connected to {{ $labels.destination_address }}:{{ $labels.destination_port }}", True),
    ("flowtel-refused-storm", "Refused again and again", LOKI,
     f'sum by (host_name, process_executable_name, destination_address, destination_port) (sum_over_time({FAILED} | error_type="refused" {FAR} {N} [5m])) > 100',
     "0s", "warning", "{{ $labels.process_executable_name }} on {{ $labels.host_name }} was refused by {{ $labels.destination_address }}:{{ $labels.destination_port }} {{ $values.A.Value }} times in five minutes", False),
    ("flowtel-scan", "One process tries many destinations", LOKI,
     f"(count by ({PROCESS}) (sum by ({PROCESS}, destination_address, destination_port) (count_over_time({FAILED} {FAR} [5m]))) > 50)"
     f" or (max by ({PROCESS}) (max_over_time({FAILED} {FAR} | flowtel_fold_destination_ports > 50 | unwrap flowtel_fold_destination_ports [5m])))",
     "0s", "critical", "{{ $labels.process_executable_name }}[{{ $labels.process_pid }}] on {{ $labels.host_name }} failed to reach {{ $values.A.Value }} destinations in five minutes", False),
    ("flowtel-handshake-jump", "Handshakes became slow", LOKI, f"({slow('10m')} > 0.05) / ({slow('50m', ' offset 10m')}) > 3",
     "0s", "warning", "Handshakes from {{ $labels.host_name }} to {{ $labels.destination_address }} take {{ $values.A.Value }} times as long as in the hour before", False),
    ("flowtel-gap", "Events were lost", LOKI, f"sum by (host_name, flowtel_gap_stage, flowtel_gap_reason) (sum_over_time({GAP} | unwrap flowtel_gap_events [5m])) > 0",
     "0s", "warning", "{{ $values.A.Value }} events of {{ $labels.host_name }} were lost at {{ $labels.flowtel_gap_stage }}: {{ $labels.flowtel_gap_reason }}", False),
    ("flowtel-deaf", "flowtel does not hear the kernel", PROMETHEUS, f"max by (host_name, instance) ({DEAF}) > 0 or max by (host_name, instance) (flowtel_capture_silence_seconds) > 30",
     "1m", "critical", "Connections on {{ $labels.host_name }} {{ $labels.instance }} go unreported", False),
    ("flowtel-queue-filling", "flowtel's queue fills up", PROMETHEUS, "max by (host_name, instance) (flowtel_queue_size_bytes / flowtel_queue_capacity_bytes) > 0.5",
     "5m", "warning", "The queue of {{ $labels.host_name }} {{ $labels.instance }} is {{ humanizePercentage $values.A.Value }} full", False),
    ("flowtel-receiver-away", "The receiver takes no records", PROMETHEUS, f"max by (host_name, instance) ({UP}) == 0", "5m", "warning",
     "Records of {{ $labels.host_name }} {{ $labels.instance }} wait", False),
    ("flowtel-collector-queue", "The collector's queue fills up", PROMETHEUS, "max by (exporter) (otelcol_exporter_queue_size / otelcol_exporter_queue_capacity) > 0.25",
     "5m", "warning", "The store behind {{ $labels.exporter }} is away or slow; the collector's log has no line of it", False),
    ("flowtel-collector-refused", "A store refuses records", PROMETHEUS,
     'sum by (outcome, http_response_status_code) (increase(otelcol_elasticsearch_docs_processed_total{outcome=~"failed.*", http_response_status_code!="409"}[10m])) > 0'
     " or sum by (exporter) (increase(otelcol_exporter_send_failed_log_records_total[10m])) > 0",
     "0s", "critical", "{{ $values.A.Value }} records were refused for good", False),
]


def rule(uid, title, source, expr, wait, severity, says, paused):
    window = {"from": 3600, "to": 0}
    query = {"refId": "A", "datasource": source, "expr": expr, "editorMode": "code"}
    query |= {"queryType": "instant"} if source is LOKI else {"instant": True}
    # Each row that the query finds fires: its comparison is the condition, also for a row whose value is 0.
    fires = {"refId": "C", "type": "math", "expression": "$A * 0 + 1", "datasource": {"type": "__expr__", "uid": "__expr__"}}
    data = [{"refId": "A", "datasourceUid": source["uid"], "relativeTimeRange": window, "model": query},
            {"refId": "C", "datasourceUid": "__expr__", "relativeTimeRange": window, "model": fires}]
    return {"uid": uid, "title": title, "condition": "C", "data": data, "noDataState": "OK", "execErrState": "Error", "for": wait, "isPaused": paused,
            "annotations": {"summary": says, "runbook_url": f"{RUNBOOKS}/{uid}.md"}, "labels": {"severity": severity, "service": "flowtel"}}


def alerts():
    return {"apiVersion": 1, "groups": [{"orgId": 1, "name": "flowtel", "folder": "flowtel", "interval": "1m", "rules": [rule(*r) for r in RULES]}]}
