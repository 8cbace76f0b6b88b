"""ClientHellos of many clients and many settings: bytes come out, as the clients sent them.

What listens takes the bytes of one connection and answers nothing that a client would go on with."""
import os
import pathlib
import random
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading

CLIENTS = pathlib.Path(__file__).parent / "clients"


class Listener:
    """Keeps the first bytes of each connection, up to the end of its ClientHello."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.heard = []
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                data = b""
                try:
                    while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
                        more = connection.recv(65536)
                        if not more:
                            break
                        data += more
                    # handshake_failure: no client tries another way.
                    connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
                except OSError:
                    pass
            if data:
                self.heard.append(data)

    def close(self):
        # What a client sent just before it ended is taken, too.
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self.socket.close()


def run(*command, **options):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, **options)


def openssl(port):
    if not shutil.which("openssl"):
        return
    names = (["-servername", "openssl.example.com"], ["-noservername"], ["-servername", "a" * 63 + ".example.com"])
    protocols = ([], ["-alpn", "h2,http/1.1"], ["-alpn", "http/1.1"], ["-alpn", "dot"])
    versions = ([], ["-tls1_3"], ["-tls1_2"], ["-no_tls1_3"])
    others = (
        [], ["-groups", "P-256"], ["-groups", "X25519:P-384"], ["-cipher", "AES128-SHA"], ["-status"],
        ["-sigalgs", "RSA+SHA256"], ["-no_ticket"], ["-cipher", "ALL:eNULL:@SECLEVEL=0"], ["-no_etm"], ["-nextprotoneg", "h2"],
        ["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], ["-legacy_renegotiation"], ["-maxfraglen", "512"], ["-use_srtp", "SRTP_AES128_CM_SHA1_80"],
    )
    ways = [(n, p, v, []) for n in names for p in protocols for v in versions]
    ways += [(names[0], protocols[i % 4], v, o) for i, o in enumerate(others) for v in versions[:3]]
    for name, protocol, version, other in ways:
        if protocol[:2] == ["-alpn", "h2,http/1.1"] or other[:1] != ["-nextprotoneg"] or version != ["-tls1_3"]:
            run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *name, *protocol, *version, *other)


def curl(port):
    if not shutil.which("curl"):
        return
    for option in (
        [], ["--http1.1"], ["--http2"], ["--no-alpn"], ["--tls-max", "1.2"], ["--tlsv1.3"], ["--curves", "P-256"],
        ["--ciphers", "ECDHE-RSA-AES128-GCM-SHA256", "--tls-max", "1.2"], ["--no-sessionid"], ["--cert-status"],
    ):
        name = "curl.example.com"
        run("curl", "-sk", "--resolve", f"{name}:{port}:127.0.0.1", *option, f"https://{name}:{port}/")
    run("curl", "-sk", f"https://127.0.0.1:{port}/")


def python(port):
    for name in ("python.example.com", "xn--bcher-kva.example", None):
        for protocols in ([], ["h2"], ["http/1.1", "h2"], ["x"]):
            for least, most in (("TLSv1_2", "TLSv1_2"), ("TLSv1_2", "TLSv1_3"), ("TLSv1_3", "TLSv1_3")):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.minimum_version, context.maximum_version = ssl.TLSVersion[least], ssl.TLSVersion[most]
                if protocols:
                    context.set_alpn_protocols(protocols)
                with socket.create_connection(("127.0.0.1", port)) as plain:
                    try:
                        context.wrap_socket(plain, server_hostname=name).close()
                    except OSError:
                        pass


def go(port):
    if shutil.which("go"):
        run("go", "run", str(CLIENTS / "hello.go"), f"127.0.0.1:{port}", env={**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off"})


def java(port):
    if shutil.which("java"):
        run("java", "-Djdk.tls.client.protocols=TLSv1.2,TLSv1.3", str(CLIENTS / "Hello.java"), str(port))


def node(port):
    if shutil.which("node"):
        run("node", str(CLIENTS / "hello.js"), str(port))


def browser(port):
    for name in ("chromium", "firefox"):
        if shutil.which(name):
            with tempfile.TemporaryDirectory() as home:
                headless = ["--headless", "--no-sandbox", f"--user-data-dir={home}"] if name == "chromium" else ["--headless", "--profile", home]
                try:
                    subprocess.run([name, *headless, f"https://localhost:{port}/"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
                except subprocess.TimeoutExpired:
                    pass


def rustls(port, flowtel):
    """flowtel's own exporter, on a record of a capture."""
    with tempfile.TemporaryDirectory() as directory:
        capture = pathlib.Path(directory) / "one.pcap"
        capture.write_bytes(pcap([(b"x", 0)]))
        for protocol in ("grpc", "http/protobuf"):
            try:
                subprocess.run(
                    [flowtel, "replay", str(capture), "--output", "otlp", "--set", f"export.endpoint=https://localhost:{port}", "--set", f"export.protocol={protocol}"],
                    stdin=subprocess.DEVNULL, capture_output=True, timeout=3,
                )
            except subprocess.TimeoutExpired:
                pass


# === hellos that no client here sends


def with_length(data, size=2):
    return len(data).to_bytes(size, "big") + data


def numbers(values):
    return b"".join(struct.pack(">H", value) for value in values)


def extension(kind, content):
    return struct.pack(">H", kind) + with_length(content)


GREASE = [0x0A0A + 0x1010 * n for n in range(16)]


def made(random):
    """One as nobody sends it, but as anybody could."""
    parts = []
    if random.random() < 0.8:
        name = random.choice(["made.example.com", "UPPER.example.com", "x" * random.randint(1, 200), "a-b_c.example"])
        parts.append(extension(0, with_length(b"\0" + with_length(name.encode()))))
    if random.random() < 0.7:
        names = random.sample([b"h2", b"http/1.1", b"h3", b"x", b"spdy/3", b"acme-tls/1", b"\x8a\x8a", b"dot"], random.randint(1, 4))
        # What starts with GREASE or ends in odd bytes is for the unit tests: versions of tshark differ there.
        names = [n for n in names if n != b"\x8a\x8a"] + [n for n in names if n == b"\x8a\x8a"]
        parts.append(extension(16, with_length(b"".join(with_length(n, 1) for n in names))))
    if random.random() < 0.8:
        versions = random.sample([0x0304, 0x0303, 0x0302, 0x0301, random.choice(GREASE)], random.randint(1, 5))
        if any(v not in GREASE for v in versions):
            parts.append(extension(43, with_length(numbers(versions), 1)))
    if random.random() < 0.8:
        algorithms = random.sample(range(0x0401, 0x0820), random.randint(1, 20))
        parts.append(extension(13, with_length(numbers(algorithms))))
    if random.random() < 0.4:
        parts.append(extension(0xFE0D, bytes(random.randint(10, 250))))
    if random.random() < 0.5:
        # X25519MLKEM768 and X25519.
        parts.append(extension(51, with_length(struct.pack(">H", 0x11EC) + with_length(bytes(1216)) + b"\0\x1d" + with_length(bytes(32)))))
    for kind in random.sample([5, 10, 11, 18, 21, 22, 23, 27, 35, 45, 17513, 0xFF01, *GREASE[:4]], random.randint(0, 8)):
        content = {5: b"\1\0\0\0\0", 10: with_length(numbers([29, 23])), 11: b"\1\0", 27: b"\2\0\2", 45: b"\1\1", 17513: b"\0\3\2h2", 0xFF01: b"\0"}
        parts.append(extension(kind, content.get(kind, bytes(random.randint(0, 9)) if kind == 21 else b"")))
    random.shuffle(parts)
    ciphers = random.sample([*range(0x1301, 0x1304), *range(0xC009, 0xC032), *range(0x2F, 0x40), *GREASE[:3]], random.randint(1, 60))
    body = b"\3" + bytes([random.choice([1, 2, 3, 3, 3])]) + bytes(32) + with_length(bytes(random.choice([0, 32])), 1)
    body += with_length(numbers(ciphers)) + b"\1\0"
    if parts:
        body += with_length(b"".join(parts))
    return b"\x16\3\1" + with_length(b"\1" + with_length(body, 3))


def all_of(flowtel):
    """(client, bytes) of every hello."""
    for name, client in (("openssl", openssl), ("curl", curl), ("python", python), ("go", go), ("java", java), ("node", node), ("browser", browser)):
        listener = Listener()
        client(listener.port)
        listener.close()
        yield from ((name, data) for data in listener.heard)
    listener = Listener()
    rustls(listener.port, flowtel)
    listener.close()
    yield from (("rustls", data) for data in listener.heard)
    source = random.Random(20)
    yield from (("made", made(source)) for _ in range(100))


# === captures of them

SYN, ACK, PSH = 2, 16, 8


def segment(number, back, sequence, acknowledgement, flags, payload=b""):
    """An IPv4 packet of connection `number`, which the client sends, or the server (`back`)."""
    ports = [20000 + number, 443]
    ends = [b"\x0a\0\0\1", b"\x0a\0\0\2"]
    if back:
        ports.reverse()
        ends.reverse()
    tcp = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledgement, 0x50, flags, 64000, 0, 0) + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + ends[0] + ends[1]
    return head + tcp


def connection(number, data, way):
    """Packets of a connection whose client says `data` in one of four ways: whole, in two segments, these the other way round, in
    many with each twice."""
    at, other = 1000, 5000
    yield segment(number, False, at, 0, SYN)
    yield segment(number, True, other, at + 1, SYN | ACK)
    yield segment(number, False, at + 1, other + 1, ACK)
    size = (65000, max(1, len(data) * 2 // 3), max(1, len(data) * 2 // 3), 300)[way]
    pieces = [(i, data[i : i + size]) for i in range(0, len(data), size)]
    if way == 2:
        pieces.reverse()
    if way == 3:
        pieces = [piece for piece in pieces for _ in (0, 1)]
    for i, piece in pieces:
        yield segment(number, False, at + 1 + i, other + 1, ACK | PSH, piece)
    end = at + 1 + len(data)
    yield segment(number, True, other + 1, end, ACK)
    yield segment(number, False, end, other + 1, ACK | 1)
    yield segment(number, True, other + 1, end + 1, ACK | 1)
    yield segment(number, False, end + 1, other + 2, ACK)


def pcap(hellos):
    """A capture of connections, each (bytes, way)."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101)]
    time = 1_700_000_000_000_000
    for number, (data, way) in enumerate(hellos):
        for packet in connection(number, data, way):
            time += 1000
            out.append(struct.pack("<IIII", time // 1_000_000, time % 1_000_000, len(packet), len(packet)) + packet)
    return b"".join(out)
