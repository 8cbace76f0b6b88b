#!/usr/bin/env python3
"""Writes first inputs of the fuzz targets: fuzz/seeds.py DIRECTORY. They are made here; captured ones are in fuzz/seeds.
They show the fuzzer what sound input looks like; the rest it finds."""
import pathlib
import struct
import sys

A, B = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 7])
SYN, ACK, FIN, RST = 2, 16, 1, 4
QUESTION = b"\x07example\x03com\0\0\x01\0\x01"
QUERY = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + QUESTION
ANSWER = struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0) + QUESTION + b"\xc0\x0c\0\x01\0\x01\0\0\1\0\0\4" + B


def ipv4(protocol, source, destination, payload):
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + source + destination + payload


def ipv6(next_header, payload):
    address = bytes([0x20, 1, 0xD, 0xB8]) + bytes(11)
    return struct.pack(">IHBB", 6 << 28, len(payload), next_header, 64) + address + b"\1" + address + b"\2" + payload


def tcp(ports, sequence, acknowledgement, flags, payload=b""):
    return struct.pack(">HHIIBBHHH", *ports, sequence, acknowledgement, 5 << 4, flags, 65535, 0, 0) + payload


def udp(ports, payload):
    return struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload


def connection():
    there, back = (40000, 443), (443, 40000)
    story = [
        (True, 100, 0, SYN, b""), (False, 900, 101, SYN | ACK, b""), (True, 101, 901, ACK, b"hello"),
        (False, 901, 106, ACK, b"world!"), (True, 106, 907, FIN | ACK, b""), (False, 907, 107, FIN | ACK, b""),
        (True, 107, 908, ACK, b""), (True, 200, 0, SYN, b""), (False, 0, 201, RST | ACK, b""),
    ]
    for first, *numbers in story:
        segment = tcp(there if first else back, *numbers)
        yield ipv4(6, A, B, segment) if first else ipv4(6, B, A, segment)


def packets():
    yield from connection()
    yield ipv4(17, A, B, udp((5353, 53), QUERY))
    yield ipv4(17, B, A, udp((53, 5353), ANSWER))
    yield ipv6(6, tcp((1, 2), 1, 2, ACK))
    yield ipv6(0, b"\x06\0\1\4\0\0\0\0" + tcp((1, 2), 1, 2, SYN))
    yield ipv6(44, b"\x06\0\0\1\0\0\0\1" + tcp((1, 2), 1, 2, SYN))


def ethernet(packet):
    return bytes(12) + (b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def block(kind, body):
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def pcap(frames):
    yield struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for i, frame in enumerate(frames):
        yield struct.pack("<IIII", 1_700_000_000, i * 1000, len(frame), len(frame)) + frame


def pcapng(frames):
    yield block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    yield block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3xHH", 9, 1, 9, 0, 0))
    for i, frame in enumerate(frames):
        head = struct.pack("<IIIII", 0, 0x17979CFE, i * 1000, len(frame), len(frame))
        yield block(6, head + frame)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def sealed(data):
    return data + crc32c(data)


def segment(first, payloads):
    """A segment of the queue on disk: the head of exporter/src/queue/disk/segment.rs has the form."""
    yield sealed(b"flowtelq" + struct.pack("<IIQI", 1, 0, first, 0))
    for sequence, payload in enumerate(payloads, first):
        head = b"FTB1" + struct.pack("<IQI", len(payload), sequence, 2) + crc32c(payload)
        yield sealed(head + struct.pack("<QQI", 1_700_000_000_000_000_000, 1_700_000_001_000_000_000, 0)) + payload


def acks(first, sequences):
    for magic, sequence in [(b"FTAH", first), *((b"FTA1", n) for n in sequences)]:
        yield sealed(struct.pack("<Q", sequence) + magic)


def seeds():
    whole = b"".join(segment(7, [b"a batch", b"another batch", bytes(40)]))
    yield "queue_segment", b"\xfe" + whole
    yield "queue_segment", b"\xff" + whole
    yield "queue_segment", b"\xfe" + whole[:-30]
    yield "queue_segment", b"\0" + b"".join(acks(7, [7, 9]))
    everything = [ethernet(packet) for packet in packets()]
    yield "pcap", b"".join(pcap(everything))
    yield "pcap", b"".join(pcapng(everything))
    for packet in packets():
        yield "packets", b"\0" + packet
        yield "packets", b"\0" + ethernet(packet)
    for message in (QUERY, ANSWER):
        yield "dns", struct.pack(">H", len(message)) + message
    container = "0123456789abcdef" * 4
    for path in (
        f"/system.slice/docker-{container}.scope", f"/kubepods.slice/kubepods-pod0.slice/cri-containerd-{container}.scope",
        f"/machine.slice/libpod-{container}.scope/container", "/system.slice/nginx.service", f"/docker/{container}",
    ):
        yield "cgroup_path", path.encode()


for number, (target, data) in enumerate(seeds()):
    directory = pathlib.Path(sys.argv[1]) / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"seed-{number}").write_bytes(data)
