"""The dashboard of flowtel itself and of the collector, asked of Prometheus (docs/metrics.md has the metrics)."""
from panels import PROMETHEUS, dashboard, graph, number, prometheus

# Gauges of unit 1 get the suffix when they come by OTLP, and none at flowtel's own /metrics.
DEAF, UP = ('{{__name__=~"flowtel_{}(_ratio)?"}}'.format(n) for n in ("audit_deaf", "export_up"))
WHO = "{{host_name}} {{instance}}"
BY = "by (host_name, instance)"
LOST = "ring_full|rate_limited|evicted"


def health():
    rate = lambda metric, by="host_name, instance": f"sum by ({by}) (rate({metric}[$__rate_interval]))"
    balance = ("sum(otel_sdk_log_created_total) - sum(flowtel_records_total) - sum(flowtel_records_waiting)")
    return dashboard("flowtel-health", "flowtel: Health", "flowtel and the collector: balances, queues, verdicts", [
        number("Deaf", "1 while ends of connections go unreported", prometheus(f"max({DEAF})"), bad=1),
        number("Receiver takes records", "1 when all receivers do", prometheus(f"1 - min({UP})"), bad=1),
        number("Queue, fullest", "Part of its budget", prometheus("max(flowtel_queue_size_bytes / flowtel_queue_capacity_bytes)"), bad=0.75, unit="percentunit"),
        number("Records without a fate", "Made, less all fates and what waits. It must be 0", prometheus(f"abs({balance})"), bad=1),
        graph("Records made", "Each second", prometheus(rate("otel_sdk_log_created_total"), WHO)),
        graph("Fates of records", "Each second: delivered is well; all others are in docs/losses.md", prometheus(rate("flowtel_records_total", "flowtel_fate"), "{{flowtel_fate}}")),
        graph("Queue", "Bytes that wait, and the budget", [prometheus(f"sum {BY} (flowtel_queue_size_bytes)", WHO),
              prometheus(f"sum {BY} (flowtel_queue_capacity_bytes)", "budget " + WHO, ref="B")], unit="bytes"),
        graph("Batches in flight, outages", "What waits for the receiver's answer; how often it stopped taking records",
              [prometheus(f"sum {BY} (flowtel_export_inflight)", "in flight " + WHO), prometheus(f"sum {BY} (flowtel_export_outages_total)", "outages " + WHO, ref="B")]),
        graph("Kernel events", "Each second, by kind", prometheus(rate("flowtel_kernel_events_total", "flowtel_kernel_event_kind"), "{{flowtel_kernel_event_kind}}")),
        graph("Kernel events lost", "A full ring, a limit, a forgotten flow: each makes a gap record",
              [prometheus(f'sum by (flowtel_fate) (rate(flowtel_kernel_events_settled_total{{flowtel_fate=~"{LOST}"}}[$__rate_interval]))', "{{flowtel_fate}}"),
               prometheus(rate("flowtel_kernel_events_lost_total", "flowtel_fate"), "before reading: {{flowtel_fate}}", ref="B")]),
        graph("Open flows", "Begun and not ended", prometheus(f"sum {BY} (flowtel_flows_open)", WHO)),
        graph("Since the rings were read", "Below a second where all is well", prometheus(f"max {BY} (flowtel_capture_silence_seconds)", WHO), unit="s"),
        graph("CPU", "Of one core", prometheus(rate("process_cpu_time_seconds_total"), WHO), unit="percentunit"),
        graph("Memory", "Resident", prometheus(f"sum {BY} (process_memory_usage_bytes)", WHO), unit="bytes"),
        graph("Collector: queue", "Records that wait for a store: it grows while the store is away", prometheus("sum by (exporter) (otelcol_exporter_queue_size)", "{{exporter}}")),
        graph("Collector: sent and failed", "Records each second", [prometheus("sum by (exporter) (rate(otelcol_exporter_sent_log_records_total[$__rate_interval]))", "sent {{exporter}}"),
              prometheus("sum by (exporter) (rate(otelcol_exporter_send_failed_log_records_total[$__rate_interval]))", "failed {{exporter}}", ref="B")]),
    ], [], since="now-3h")
