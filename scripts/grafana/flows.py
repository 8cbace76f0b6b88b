"""The dashboards that are asked of Loki: Overview, Destinations, History."""
from panels import DESTINATION, FAR, FLOW, N, begins, dashboard, ends, failed, graph, hosts, lines, loki, loopback, number, stream, table, words

TO_DESTINATION = ("Who talks to it", "/d/flowtel-destinations?var-destination=${__value.raw}&${__url_time_range}")
TO_HISTORY = ("All its flows", "/d/flowtel-history?var-address=${__value.raw}&${__url_time_range}")
NAMED = {"destination_address": "Destination", "destination_port": "Port", "flowtel_destination_dns_names": "Names"}
GAPS = '{service_name="flowtel", host_name=~"$host", event_name="flowtel.gap"} | unwrap flowtel_gap_events'


def tried(more=""):
    return f'{{service_name="flowtel", host_name=~"$host", event_name=~"flowtel.tcp.flow.(begin|failed)"}} {FAR} | flowtel_flow_direction="outgoing"{more}'


def new(by): return f"sum by ({by}) (count_over_time({tried()} [10m])) unless sum by ({by}) (count_over_time({tried()} [$__range] offset 10m))"


def both_bytes(by, more=""):
    one = lambda side: f"sum by ({by}) (sum_over_time({ends(more)} | unwrap flowtel_{side}_bytes [$__range]))"
    return f"{one('source')} + {one('destination')}"


def overview():
    shake = lambda q: f"quantile_over_time({q}, {begins()} | unwrap flowtel_tcp_handshake_duration [$__auto]) by (service_name)"
    return dashboard("flowtel", "flowtel: Overview", "What connects, what fails, what is new", [
        number("Connections", "Begun, on the side that asked", loki(f"sum(sum_over_time({begins()} {N} [$__range])) or vector(0)", instant=True)),
        number("Failed attempts", "Folded ones are counted", loki(f"sum(sum_over_time({failed()} {N} [$__range])) or vector(0)", instant=True)),
        number("New destinations", "In the last ten minutes, and not before in the time shown", loki(f"count({new('destination_address')}) or vector(0)", instant=True)),
        number("Events known to be lost", "By flowtel's own account (gap records)", loki(f"sum(sum_over_time({GAPS} [$__range])) or vector(0)", instant=True), bad=1),
        graph("Connections by direction", "Each side of a connection has a begin: outgoing on the side that asked",
              loki(f"sum by (flowtel_flow_direction) (sum_over_time({stream(FLOW + 'begin')} {N} [$__auto]))", "{{flowtel_flow_direction}}"), bars=True),
        graph("Failed attempts by cause", "error.type; refused, timed_out, unreachable, aborted, denied",
              loki(f"sum by (error_type) (sum_over_time({failed()} {N} [$__auto]))", "{{error_type}}"), bars=True),
        graph("Handshakes", "From SYN to SYN-ACK", [loki(shake(q), f"p{int(100 * q)}", ref=r) for q, r in ((0.5, "A"), (0.95, "B"), (0.99, "C"))], unit="s"),
        table("New destinations", "First tried in the last ten minutes of the time shown", loki(new("destination_address, destination_port"), instant=True),
              {"destination_address": "Destination", "destination_port": "Port", "Value #A": "Attempts"}, h=8, links={"destination_address": TO_DESTINATION}),
        table("Top talkers by connections", "Who connects where most", loki(
              f"topk(20, sum by (host_name, process_executable_name, {DESTINATION}) (sum_over_time({begins()} {N} [$__range])))", instant=True),
              {"host_name": "Host", "process_executable_name": "Program"} | NAMED | {"Value #A": "Connections"}, links={"destination_address": TO_DESTINATION}),
        table("Top talkers by bytes", "Both ways, of the flows that ended", loki(f"topk(20, {both_bytes('host_name, process_executable_name, destination_address')})", instant=True),
              {"host_name": "Host", "process_executable_name": "Program", "destination_address": "Destination", "Value #A": "Bytes"},
              units={"Value #A": "bytes"}, links={"destination_address": TO_DESTINATION}),
        table("What was lost, and where", "Gap records, by stage and reason (docs/losses.md)", loki(
              f"sum by (host_name, flowtel_gap_stage, flowtel_gap_reason) (sum_over_time({GAPS} [$__range]))", instant=True),
              {"host_name": "Host", "flowtel_gap_stage": "Stage", "flowtel_gap_reason": "Reason", "Value #A": "Events"}, w=24, h=6),
    ], [hosts(), loopback()])


def destinations():
    chosen = '| destination_address=~"$destination" | flowtel_destination_dns_names=~"$name"'
    by = f"{DESTINATION}, process_executable_name, container_id"
    first = f'min by ({by}) (min_over_time({begins(chosen)} | label_format t="{{{{__timestamp__ | unixEpochMillis}}}}" | unwrap t [$__range]))'
    count = lambda by: f"sum by ({by}) (sum_over_time({begins(chosen)} {N} [$__range]))"
    return dashboard("flowtel-destinations", "flowtel: Destinations", "Where connections go, by whom, since when", [
        table("Destinations", "Connections, bytes both ways and the first time within the time shown", [
              loki(f"topk(500, {count(by)})", instant=True), loki(both_bytes(by, chosen), instant=True, ref="B"), loki(first, instant=True, ref="C")],
              NAMED | {"process_executable_name": "Program", "container_id": "Container", "Value #A": "Connections", "Value #B": "Bytes", "Value #C": "First seen"},
              w=24, h=12, units={"Value #B": "bytes", "Value #C": "dateTimeFromNow"}, links={"destination_address": TO_DESTINATION}),
        table("Rarest", "The fewest connections; a link shows all flows", loki(f"bottomk(20, {count(DESTINATION)})", instant=True),
              NAMED | {"Value #A": "Connections"}, links={"destination_address": TO_HISTORY}),
        table("By name", "As this host saw it resolve", loki(f"topk(50, {count('flowtel_destination_dns_names')})", instant=True),
              {"flowtel_destination_dns_names": "Names", "Value #A": "Connections"}),
        graph("Connections by program", "To what is chosen above", loki(f"sum by (process_executable_name) (sum_over_time({begins(chosen)} {N} [$__auto]))",
              "{{process_executable_name}}"), w=24, bars=True),
        lines("Latest connections", "To what is chosen above, the newest first", begins(chosen)),
    ], [hosts(), loopback(), words("destination", "Destination", "IP address, as a regular expression"), words("name", "Name", "Of the destination, as a regular expression")])


def history():
    chosen = ('| container_id=~"$container" | process_executable_name=~"$program" | source_address=~"$address" or destination_address=~"$address"')
    every = f'{{service_name="flowtel", host_name=~"$host"}} {FAR} {chosen}'
    return dashboard("flowtel-history", "flowtel: History of a host or container", "An incident: all flows of one place in a time range", [
        graph("Records", "By event", loki(f"sum by (event_name) (count_over_time({every} [$__auto]))", "{{event_name}}"), bars=True),
        graph("Ends by cause", "fin, reset.local, reset.remote, timeout", loki(
              f"sum by (flowtel_flow_end_reason) (count_over_time({stream(FLOW + 'end', chosen)} [$__auto]))", "{{flowtel_flow_end_reason}}"), bars=True),
        table("Failed attempts", "By cause and destination", loki(f"topk(50, sum by (error_type, process_executable_name, {DESTINATION}) (sum_over_time({failed(chosen)} {N} [$__range])))", instant=True),
              {"error_type": "Cause", "process_executable_name": "Program"} | NAMED | {"Value #A": "Attempts"}),
        table("Connections", "Who went where", loki(f"topk(50, sum by (process_executable_name, container_id, {DESTINATION}) (sum_over_time({begins(chosen)} {N} [$__range])))", instant=True),
              {"process_executable_name": "Program", "container_id": "Container"} | NAMED | {"Value #A": "Connections"}, links={"destination_address": TO_DESTINATION}),
        lines("All records", "The newest first; each opens", every, h=18),
    ], [hosts(), loopback(), words("container", "Container", "Its id, or the beginning and .*"), words("program", "Program", "Name of the executable"),
        words("address", "Address", "Of either side, as a regular expression")], refresh="")
