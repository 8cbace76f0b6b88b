#!/usr/bin/env python3
"""Writes first inputs of the fuzz targets: fuzz/seeds.py DIRECTORY. They are made here; captured ones are in fuzz/seeds.
They show the fuzzer what sound input looks like; the rest it finds."""
import gzip
import lzma
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


def layers():
    """Link type and frame: a segment in each encapsulation."""
    for p in (ipv4(6, A, B, tcp((1, 2), 1, 2, SYN)), ipv6(6, tcp((1, 2), 1, 2, SYN))):
        e, kind = ethernet(p), ethernet(p)[12:14]
        snap = b"\xaa\xaa\x03\0\0\0" + kind + p
        ppp = b"\0" + (b"\x21" if p[0] >> 4 == 4 else b"\x57") + p
        wifi = b"\x88\x01" + bytes(24) + snap
        number = 4 if p[0] >> 4 == 4 else 41
        yield 101, p
        yield 1, bytes(12) + b"\x88\xa8\0\5\x81\0\0\6" + kind + p
        yield 1, bytes(12) + b"\x88\xe7\0\0\0\1" + e
        yield 1, bytes(12) + b"\x88\x47\0\1\1\x09" + p
        yield 1, bytes(12) + b"\x88\x47\0\1\1\x09" + bytes(4) + e
        yield 1, bytes(12) + b"\x88\x64\x11\0\0\1\0\x40" + ppp
        yield 1, bytes(12) + b"\0\x40" + snap
        yield 1, bytes(12) + b"\x22\xf3\0\0\0\1\0\2" + e
        yield 1, bytes(12) + b"\x89\x4f\0\2\2\3\0\0\0\1" + e
        yield 9, b"\xff\3" + ppp
        yield 104, b"\x0f\0" + kind + p
        yield 107, b"\x18\x41\3\0\x80" + snap[3:]
        yield 105, wifi
        yield 127, struct.pack("<BBHI", 0, 0, 18, 3) + bytes(8) + b"\0\0" + wifi
        yield 119, struct.pack("<II", 0x44, 144) + bytes(136) + wifi
        yield 163, struct.pack(">II", 0x80211001, 64) + bytes(56) + wifi
        yield 192, struct.pack("<HHI", 0, 8, 105) + wifi
        yield 113, bytes(14) + kind + p
        yield 276, kind + bytes(18) + p
        yield 239, b"\2\0\0\0" + struct.pack("<HH", 4 + len(p), 9) + p
        yield 258, struct.pack("<III", 12, 1, 1) + e
        yield 197, bytes(8) + b"\x82" + bytes(7) + bytes(8) + b"\0\0" + e
        yield 178, b"MGC\x80\0\2\0\0" + e
        yield 129, bytes(4) + b"\xd4\0\0\1" + p
        yield 6, bytes(14) + snap
        yield 101, ipv4(number, A, B, p)
        yield 101, ipv6(number, p)
        yield 101, ipv4(51, A, B, bytes([number, 4]) + bytes(22) + p)
        yield 101, ipv4(47, A, B, b"\xb0\0" + kind + bytes(12) + p)
        yield 101, ipv4(47, A, B, b"\x40\0" + kind + bytes(8) + p)
        yield 101, ipv4(47, A, B, b"\x30\x81\x88\x0b" + bytes(12) + b"\xff\3" + ppp)
        yield 101, ipv4(47, A, B, b"\x10\0\x88\xbe\0\0\0\0\x10" + bytes(7) + e)
        yield 101, ipv4(47, A, B, b"\x10\0\x22\xeb\0\0\0\0\x20" + bytes(10) + b"\1" + bytes(8) + e)
        yield 101, ipv4(97, A, B, b"\x30\0" + e)
        for port, payload in (
            (4789, b"\x08" + bytes(7) + e), (4790, b"\x0c\0\0\3" + bytes(4) + e), (6081, b"\2\0\x65\x58" + bytes(12) + e),
            (2152, b"\x34\xff\0\x40\0\0\0\1\0\0\0\x85\1\0\0\xc0\1\0\0\0" + p), (3386, b"\x1e\xff" + bytes(18) + p),
            (3544, b"\0\1\0\0" + bytes(9) + bytes(8) + p), (1701, b"\x4a\2" + bytes(12) + b"\0\2\0\0\xff\3" + ppp),
            (4341, bytes(8) + p), (5247, b"\0\x10\3\0\0\0\0\0\1\x08" + bytes(22) + snap), (37008, b"\1\0\0\1\x0a\1\x09\0\1" + e),
            (4754, b"\0\0" + kind + p), (6635, b"\0\1\1\x09" + p),
        ):
            yield 101, ipv4(17, A, B, udp((9, port), payload))


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


def hellos():
    """TLS ClientHellos: plain, with a large key, in many records."""
    def list_of(data, size=2):
        return len(data).to_bytes(size, "big") + data

    for more in (0, 1216):
        extensions = [
            (0x2A2A, b""), (0, list_of(b"\0" + list_of(b"www.example.com"))), (16, list_of(b"\2h2\x08http/1.1")),
            (43, b"\6\x3a\x3a\3\4\3\3"), (13, list_of(b"\4\3\x08\4")), (51, list_of(b"\x11\xec" + list_of(bytes(more)))), (0xFE0D, bytes(40)),
        ]
        body = b"\3\3" + bytes(32) + list_of(bytes(32), 1) + list_of(b"\x1a\x1a\x13\1\xc0\x2b") + b"\1\0"
        body += list_of(b"".join(struct.pack(">H", kind) + list_of(content) for kind, content in extensions))
        message = b"\1" + list_of(body, 3)
        for size in (16384, 100):
            parts = [message[i : i + size] for i in range(0, len(message), size)]
            yield b"".join(b"\x16\3\1" + list_of(part) for part in parts)


def seeds():
    whole = b"".join(segment(7, [b"a batch", b"another batch", bytes(40)]))
    yield "queue_segment", b"\xfe" + whole
    yield "queue_segment", b"\xff" + whole
    yield "queue_segment", b"\xfe" + whole[:-30]
    yield "queue_segment", b"\0" + b"".join(acks(7, [7, 9]))
    everything = [ethernet(packet) for packet in packets()]
    yield "pcap", b"".join(pcap(everything))
    yield "pcap", b"".join(pcapng(everything))
    whole = b"".join(pcap(everything))
    yield "packed", b"\0" + gzip.compress(whole)[3:]
    yield "packed", b"\4" + lzma.compress(whole)[6:]
    yield "packed", b"\x09" + gzip.compress(whole)
    yield "packed", b"\x09" + lzma.compress(whole)
    # zstd: no checksum, no size, a window of 64 KiB, and one block as it is, the last.
    yield "packed", b"\1" + b"\0\x30" + struct.pack("<I", len(whole) << 3 | 1)[:3] + whole
    # lz4: one block as it is, and the end.
    yield "packed", b"\2" + b"\x60\x40\x82" + struct.pack("<I", len(whole) | 1 << 31) + whole + bytes(4)
    for link, frame in layers():
        yield "layers", struct.pack(">H", link) + frame
    for packet in packets():
        yield "packets", b"\0" + packet
        yield "packets", b"\0" + ethernet(packet)
    for hello in hellos():
        half = len(hello) // 2
        yield "tls", struct.pack(">HH", 0, len(hello)) + hello
        yield "tls", struct.pack(">HH", half, len(hello) - half) + hello[half:] + struct.pack(">HH", 0, half) + hello[:half]
        yield "tls", hello
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
