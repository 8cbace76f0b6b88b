"""What tshark and flowtel each make of one capture: the handshakes, by who connected to whom.

tshark names the fields of each TCP segment; which of them are a handshake is decided here, from a connection's SYN, the
SYN-ACK that acknowledges it, and the initiator's segment that acknowledges that: nothing of flowtel's own logic."""
import collections
import json
import subprocess

FIELDS = [
    "tcp.stream", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst",
    "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.seq", "tcp.ack",
]
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
FAR = 1 << 20


def segments(capture):
    """The TCP segments as tshark reads them: of a packet in a tunnel the innermost. What an ICMP error quotes is none."""
    command = ["tshark", "-n", "-r", str(capture), "-Y", "tcp && !icmp && !icmpv6", "-T", "fields", "-E", "occurrence=l",
               "-o", "tcp.relative_sequence_numbers:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE"]
    for field in FIELDS:
        command += ["-e", field]
    shown = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    for line in shown.stdout.splitlines():
        stream, protocols, *addresses, source, destination, flags, sequence, acknowledgement = line.split("\t")
        if not stream or not flags or not sequence:
            continue
        before = protocols.split(":tcp")[0].split(":")
        version = next((name for name in reversed(before) if name in ("ip", "ipv6")), None)
        if version is None:
            continue
        pair = addresses[:2] if version == "ip" else addresses[2:]
        yield (stream, (pair[0], int(source)), (pair[1], int(destination)), int(flags, 16), int(sequence),
               int(acknowledgement or 0))


def of_tshark(capture):
    """Handshakes by (source, destination). Packets may be captured out of order, so all of a stream are looked at; what the
    initiator sends after a reset completes nothing."""
    streams = collections.defaultdict(lambda: ([], [], []))
    resets = {}
    for at, (stream, source, destination, flags, sequence, acknowledgement) in enumerate(segments(capture)):
        syns, answers, others = streams[stream]
        kind = flags & (SYN | ACK | RST | FIN)
        if kind == SYN:
            syns.append((source, destination, sequence))
        elif kind == SYN | ACK:
            answers.append((source, destination, sequence, acknowledgement))
        elif kind & (ACK | SYN | RST) == ACK:
            others.append((at, source, destination, acknowledgement))
        if kind & RST and answers:
            resets.setdefault(stream, at)
    found = collections.Counter()
    for stream, (syns, answers, others) in streams.items():
        begun = set()
        for source, destination, syn in syns:
            for from_, to, answer, acknowledged in answers:
                if (from_, to) != (destination, source) or (acknowledged - syn - 1) % 2**32 >= FAR:
                    continue
                for at, by, _, number in others:
                    if by == source and (number - answer - 1) % 2**32 < FAR and at < resets.get(stream, at + 1):
                        begun.add((source, destination))
        found.update(begun)
    return found


def records(flowtel, capture, *arguments):
    """flowtel's records as dictionaries, its exit code, and what it wrote to standard error."""
    run = subprocess.run([flowtel, "replay", *arguments, str(capture)], capture_output=True, timeout=600)
    found = []
    for line in run.stdout.splitlines():
        for resource in json.loads(line)["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                for record in scope["logRecords"]:
                    values = {a["key"]: next(iter(a["value"].values())) for a in record["attributes"]}
                    found.append(values | {"name": record["eventName"]})
    return found, run.returncode, run.stderr.decode(errors="replace")


def begins(found):
    """Begins by (source, destination)."""
    count = collections.Counter()
    for record in found:
        if record["name"] == "flowtel.tcp.flow.begin":
            source = (record["source.address"], int(record["source.port"]))
            destination = (record["destination.address"], int(record["destination.port"]))
            count[source, destination] += 1
    return count
