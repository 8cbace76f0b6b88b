"""An hour of flowtel's records as plain dictionaries, the same for every store: what a test asks for is counted from these.

Two hosts connect to a few sites, of which one is themselves over loopback. In the last minutes there is what rules have to find:
handshakes to github.com became slow, a worker is refused in a storm, and nmap scans 600 addresses. Needs only Python's library."""
import datetime, ipaddress, random

BEGIN, END, FAILED, GAP, UPDATE, HELLO = (
    f"flowtel.{n}" for n in ("tcp.flow.begin", "tcp.flow.end", "tcp.flow.failed", "gap", "tcp.flow.update", "tls.client_hello"))
SITES = [("93.184.216.34", ["example.com", "www.example.com"]), ("140.82.121.4", ["github.com"]), ("203.0.113.9", []),
         ("10.96.0.10", ["kube-dns.kube-system.svc.cluster.local"]), ("2001:db8::5", ["v6.example.net"]), ("192.168.7.7", ["db.example"]),
         ("127.0.0.1", ["localhost"])]
HOSTS = ["node-1", "node-2"]
CONTAINER = "4f2c9a" + "0" * 58
SECOND = 10**9
HOUR = 3600 * SECOND
SCANNED = 600 # more series than the 500 that Loki allows a query by default


class Story:
    """Makes records in the order of their time's second; each has an id of its own."""
    def __init__(self, end):
        self.end, self.random, self.made = end, random.Random(7), []

    def record(self, host, at, event, flow, attributes, body):
        uid = f"{flow:030x}{dict(zip((BEGIN, END, FAILED, GAP, UPDATE, HELLO), ('b0', 'e0', 'f0', '90', 'd0', 'a0')))[event]}"
        self.made.append({"host": host, "time": at, "event": event, "body": body, "attributes": {"log.record.uid": uid} | attributes})

    def attempt(self, flow, direction, source, destination, owner, names=(), **more):
        """Attributes that records of one side of a flow share, and its body."""
        arrow = f"{direction} tcp {source[0]}:{source[1]} -> {destination[0]}:{destination[1]} {owner[0]}[{owner[1]}]"
        a = {"flowtel.flow.id": f"{flow:032x}", "flowtel.flow.community_id": f"1:{flow:027d}=", "flowtel.flow.direction": direction,
             "source.address": source[0], "source.port": source[1], "destination.address": destination[0], "destination.port": destination[1],
             "network.transport": "tcp", "network.type": "ipv6" if ":" in destination[0] else "ipv4",
             "process.pid": owner[1], "process.real_user.id": 1000 + owner[1] % 3, "thread.name": owner[0],
             "process.executable.name": owner[0], "process.executable.path": f"/usr/bin/{owner[0]}"}
        if names: a["flowtel.destination.dns.names"] = list(names) # never an empty list
        return a | more, arrow

    def connection(self, i, at):
        """A flow with its begin and its end, or a failure; over loopback there are two sides."""
        rnd, host = self.random, HOSTS[i % 2]
        address, names = SITES[rnd.randrange(len(SITES))]
        loopback = address == "127.0.0.1"
        mine = address if loopback else f"fd00::{i % 2 + 1}" if ":" in address else f"10.0.{i % 2 * 200}.5"
        source, port = (mine, 32768 + i % 28000), rnd.choice([443, 443, 80, 5432, 22])
        owner = rnd.choice([("curl", 1001), ("curl", 1001), ("python3", 1002), ("postgres", 1003), ("ssh", 1004)])
        incoming = not loopback and rnd.random() < 0.2
        ends = ((address, source[1]), (mine, port)) if incoming else (source, (address, port))
        if incoming: owner, names = ("nginx", 1005), ["here.example"]
        a, body = self.attempt(2 * i, "incoming" if incoming else "outgoing", *ends, owner, names)
        if loopback: a["flowtel.flow.local"] = True
        if owner[0] == "python3": a["container.id"] = CONTAINER
        if i % 9 == 4:
            self.record(host, at, FAILED, 2 * i, a | {"error.type": rnd.choice(["refused", "timed_out"]), "flowtel.tcp.attempts": 1}, body)
            return
        slow = names == ["github.com"] and at > self.end - 600 * SECOND
        sides = [(2 * i, a, body)]
        if loopback:
            other, words = self.attempt(2 * i + 1, "incoming", *ends, ("nginx", 1005), names)
            sides.append((2 * i + 1, other | {"flowtel.flow.local": True}, words))
        shake = round(rnd.choice([0.0004, 0.02, 0.04]) * (20 if slow else 1) * (1 + rnd.random() / 10), 6)
        # Nanoseconds with zeros in every place: stores drop one here and there.
        lasts = min(rnd.choice([1_000_000, 250, 400 * SECOND + 1, 60_350]), self.end - at - 2_000_000)
        counts = {"flowtel.source.bytes": rnd.randrange(10_000), "flowtel.destination.bytes": rnd.randrange(1_000_000),
                  "flowtel.source.packets": 10, "flowtel.destination.packets": 12}
        for flow, a, body in sides:
            self.record(host, at, BEGIN, flow, a | {"flowtel.tcp.handshake.duration": shake}, body)
            self.record(host, at + lasts, END, flow, a | counts | {"flowtel.flow.duration": lasts / 1e9, "flowtel.flow.end.reason": "fin"}, body)

    def storm(self, flow, at):
        """Refused again and again: five records, then one that stands for 400."""
        refused = {"error.type": "refused", "flowtel.tcp.attempts": 1}
        for i in range(6):
            a, body = self.attempt(flow + i, "outgoing", ("10.0.0.5", 40000 + i), ("10.0.9.9", 6379), ("worker", 2001))
            if i == 5: # what differs among them is not there
                for k in ("source.port", "flowtel.flow.id", "flowtel.flow.community_id"): del a[k]
                a |= {"flowtel.fold.count": 400, "flowtel.fold.duration": 20.5, "flowtel.tcp.attempts": 400}
            self.record("node-1", at + i * SECOND, FAILED, flow + i, a | refused, body)

    def scan(self, flow, at):
        for i in range(SCANNED):
            target = str(ipaddress.ip_address("10.9.0.0") + i)
            a, body = self.attempt(flow + i, "outgoing", ("10.0.200.5", 20000 + i), (target, 22), ("nmap", 4242))
            self.record("node-2", at + i * 10_000_000, FAILED, flow + i, a | {"error.type": "refused", "flowtel.tcp.attempts": 1}, body)

    def updates(self, flow, at):
        """Two connections that are open all the time: three updates of each, five minutes apart."""
        for i, (target, rate) in enumerate([("198.51.100.7", 1000), ("198.51.100.8", 50)]):
            passed = 0
            for n in range(3):
                a, body = self.attempt(flow + i, "outgoing", ("10.0.0.5", 50000 + i), (target, 443), ("curl", 1001))
                more, passed = rate + n, passed + rate + n
                a |= {"flowtel.flow.duration": 300.0 * (n + 1), "flowtel.source.bytes": passed, "flowtel.destination.bytes": 10 * passed,
                      "flowtel.source.packets": 10 * (n + 1), "flowtel.destination.packets": 12 * (n + 1), "flowtel.tcp.retransmits": 0,
                      "flowtel.delta.source.bytes": more, "flowtel.delta.destination.bytes": 10 * more,
                      "flowtel.delta.source.packets": 10, "flowtel.delta.destination.packets": 12, "flowtel.delta.tcp.retransmits": 0}
                # Each has an id of its own.
                self.record("node-1", at + n * 300 * SECOND, UPDATE, flow + 10 * (n + 1) + i, a, body)

    def hellos(self, flow, at):
        """What TLS clients said: three names, one of them asked for by a client with another fingerprint."""
        for i, (name, ja4) in enumerate([("www.example.com", "t13d1516h2_8daaf6152771_e5627efa2ab1")] * 5 + [("updates.example.net", "t13d1516h2_8daaf6152771_e5627efa2ab1")] * 3
                                        + [("odd.example.org", "t12d040400_a6a9ab001284_2dae41c691ec")]):
            a, body = self.attempt(flow + i, "outgoing", ("10.0.0.5", 51000 + i), ("198.51.100.9", 443), ("curl", 1001))
            a |= {"flowtel.tls.server_name": name, "flowtel.tls.protocols": ["h2", "http/1.1"], "flowtel.tls.versions": ["1.3", "1.2"], "flowtel.tls.ja4": ja4}
            self.record("node-1", at + i * SECOND, HELLO, flow + i, a, body)

    def gap(self, flow, at):
        since = datetime.datetime.fromtimestamp(at // SECOND - 5, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
        self.record("node-1", at, GAP, flow, {"flowtel.gap.events": 7, "flowtel.gap.total": 7, "flowtel.gap.stage": "kernel",
                                              "flowtel.gap.reason": "flows_ring_full", "flowtel.gap.since": since}, "7 events were lost")


def story(end, connections=1500):
    """The records of the hour before `end` (in nanoseconds). All are older than `end`, and none is older than an hour."""
    s = Story(end)
    step = (HOUR - 60 * SECOND) // connections
    for i in range(connections): s.connection(i, end - HOUR + 30 * SECOND + i * step + s.random.choice([60_350, 350, 7]))
    s.storm(10**6, end - 240 * SECOND)
    s.scan(2 * 10**6, end - 180 * SECOND)
    s.gap(3 * 10**6, end - 120 * SECOND)
    s.updates(4 * 10**6, end - 1500 * SECOND)
    s.hellos(5 * 10**6, end - 1400 * SECOND)
    return sorted(s.made, key=lambda r: r["time"])


def flat(records):
    """The same with host and event among the attributes."""
    return [{"host.name": r["host"], "event": r["event"], "body": r["body"], "time": r["time"], **r["attributes"]} for r in records]


def within(row, side, *networks):
    """Whether that side's address is in one of the networks."""
    a = ipaddress.ip_address(row.get(f"{side}.address", "::"))
    return any(a.version == n.version and a in n for n in map(ipaddress.ip_network, networks))


def loopback(row): return within(row, "source", "127.0.0.0/8", "::1/128")


def weight(row):
    """How many connections or attempts a record stands for."""
    return row.get("flowtel.fold.count", 1)
