#!/usr/bin/env python3
"""What flowtel's records cost a Loki: bytes stored a record, and how long queries take over many of them.

Sends records of a day, of 20 hosts and 1,000 destinations, as OTLP protobuf straight to a Loki with the shipped settings (but for
its rate). RECORDS=10000000 takes a quarter of an hour and 2 GB of disk. Prints a table; asserts only that all records are there.
    tests/stack/build.sh loki && RECORDS=1000000 tests/stack/volume.py
"""
import http.client, os, random, statistics, struct, sys, time, urllib.parse, urllib.request

import servers
from logql import Loki
from stand import equal, program

RECORDS = int(os.environ.get("RECORDS", 1_000_000))
A_REQUEST, HOSTS, DAY = 2500, 20, 86400 * 10**9
FAR = '{service_name="flowtel", event_name="flowtel.tcp.flow.begin"} | flowtel_flow_direction="outgoing" | source_address!~"127[.].*|::1"'
EVENTS = ("flowtel.tcp.flow.begin", "flowtel.tcp.flow.end")
QUERIES = [
    ("connections of the day", f"sum(count_over_time({FAR} [24h]))", "query"),
    ("top 10 destinations of the day", f"topk(10, sum by (destination_address) (count_over_time({FAR} [24h])))", "query"),
    ("the same, of an hour", f"topk(10, sum by (destination_address) (count_over_time({FAR} [1h])))", "query"),
    ("a network, of the day (lines)", '{service_name="flowtel"} | destination_address=ip("10.7.0.0/30")', "query_range"),
    ("one host, an hour, by program", 'sum by (process_executable_name) (count_over_time({service_name="flowtel", host_name="node-7"} [1h]))', "query"),
    ("p95 handshake of the day", f"quantile_over_time(0.95, {FAR} | unwrap flowtel_tcp_handshake_duration [24h]) by (host_name)", "query"),
]


# === protobuf by hand: two wire types are all that is needed, and a library would be a dependency

def varint(n):
    out = bytearray()
    while n > 127: out.append(n & 127 | 128); n >>= 7
    out.append(n)
    return bytes(out)


def field(number, payload): return varint(number << 3 | 2) + varint(len(payload)) + payload
def pair(key, value): return field(6, field(1, key.encode()) + field(2, value))
def text(key, value): return pair(key, field(1, value.encode()))
def number(key, value): return pair(key, varint(3 << 3) + varint(value))
def double(key, value): return pair(key, varint(4 << 3 | 1) + struct.pack("<d", value))


def request(host, event, records):
    resource = b"".join(field(1, field(1, k.encode()) + field(2, field(1, v.encode()))) for k, v in (
        ("service.name", "flowtel"), ("host.name", host), ("service.instance.id", f"instance-{host}"), ("service.version", "0.1.0")))
    logs = b"".join(field(2, r) for r in records)
    return field(1, field(1, resource) + field(2, field(1, field(1, b"flowtel")) + logs))


def flow(rnd, event):
    """The parts of a record that others may share: attributes and body, as bytes."""
    program, d = rnd.choice(("curl", "python3", "nginx", "postgres")), rnd.randrange(1000)
    destination, source, port = f"10.7.{d // 250}.{d % 250}", f"10.0.{rnd.randrange(20)}.{rnd.randrange(250)}", rnd.randrange(32768, 60000)
    attributes = [
        text("event.name", event), text("network.transport", "tcp"), text("network.type", "ipv4"), text("flowtel.flow.direction", "outgoing"),
        number("destination.port", 443), number("process.real_user.id", 1000), text("flowtel.process.role", "connector"),
        text("flowtel.process.source", "connect"), text("flowtel.systemd.unit", "app.service"), text("flowtel.process.executable.source", "exec"),
        text("source.address", source), number("source.port", port), text("destination.address", destination), number("process.pid", rnd.randrange(300, 30000)),
        text("process.executable.name", program), text("process.executable.path", f"/usr/bin/{program}"), text("thread.name", program),
        double("flowtel.tcp.handshake.duration", rnd.random() / 50) if event.endswith("begin") else double("flowtel.flow.duration", rnd.random() * 50)]
    if d % 3: attributes.append(text("flowtel.destination.dns.names", f'["service-{d}.example.internal"]'))
    return field(5, field(1, f"outgoing tcp {source}:{port} -> {destination}:443 {program}[1234]".encode())) + b"".join(attributes)


# The ids of a record are its own: 32, 32 and 27 digits, so their places are always the same.
IDS = text("log.record.uid", "U" * 32) + text("flowtel.flow.id", "F" * 32) + text("flowtel.flow.community_id", "1:" + "C" * 27 + "=")
U, F, C = IDS.index(b"U" * 32), IDS.index(b"F" * 32), IDS.index(b"C" * 27)
HEAD, MIDDLE, MORE, TAIL = IDS[:U], IDS[U + 32:F], IDS[F + 32:C], IDS[C + 27:]


def record(rnd, at, shared):
    stamp, x = struct.pack("<Q", at), b"%097x" % rnd.getrandbits(384)
    return b"".join((b"\x09", stamp, b"\x59", stamp, b"\x10\x09", shared, HEAD, x[:32], MIDDLE, x[32:64], MORE, x[64:91], TAIL))


def load(base):
    address = urllib.parse.urlparse(base).netloc
    connection, rnd, sent, size, begun = http.client.HTTPConnection(address, timeout=120), random.Random(3), 0, 0, time.time()
    now = time.time_ns()
    pool = {e: [flow(rnd, e) for _ in range(20_000)] for e in EVENTS}
    while sent < RECORDS:
        event = EVENTS[sent // A_REQUEST % 2]
        host = f"node-{sent // A_REQUEST // 2 % HOSTS}"
        first, shared = now - DAY + 1 + sent * DAY // RECORDS, pool[event]
        body = request(host, event, [record(rnd, first + i * DAY // RECORDS, rnd.choice(shared)) for i in range(A_REQUEST)])
        for _ in range(50):
            connection.request("POST", "/otlp/v1/logs", body, {"content-type": "application/x-protobuf"})
            answer = connection.getresponse()
            words = answer.read()
            if answer.status != 429: break
            time.sleep(1)
        assert answer.status == 204, f"{answer.status} {words[:300]}"
        sent, size = sent + A_REQUEST, size + len(body)
    return sent, size, time.time() - begun, now


def du(folder): return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(folder) for f in files)


def main(folder, started, checks):
    started.append(servers.loki(folder, more=[("ingestion_rate_mb: 16", "ingestion_rate_mb: 1000"), ("ingestion_burst_size_mb: 32", "ingestion_burst_size_mb: 1000")]))
    loki = Loki(started[0].wait().base, 0)
    sent, size, took, loki.now = load(loki.base)
    print(f"{sent} records, {size / sent:.0f} B each as OTLP, in {took:.0f} s ({sent / took:.0f} a second)", flush=True)
    urllib.request.urlopen(urllib.request.Request(f"{loki.base}/flush", method="POST"), timeout=60).close()
    chunks, before = folder / "loki/chunks", -1
    while du(chunks) != before: # written until it stands still
        before = du(chunks)
        time.sleep(15)
    print(f"on disk: {du(chunks) / sent:.1f} B a record in chunks", flush=True)
    everything = 'sum(count_over_time({service_name="flowtel"} [25h]))'
    checks.check("every record is there, once", lambda: equal(list(loki.table(everything).values()), [float(sent)]))
    for what, query, kind in QUERIES:
        times = []
        def run():
            begun = time.time()
            loki.ask(query, kind, **({"start": loki.now - DAY, "end": loki.now} if kind == "query_range" else {}))
            times.append(time.time() - begun)
        for i in range(3): checks.check(f"{what}, {i + 1}", run)
        if times: print(f"| {what} | {statistics.median(times):.1f} s |", flush=True)


if __name__ == "__main__":
    sys.exit(program(main, "loki"))
