#!/usr/bin/env python3
"""ClientHellos of many clients in captures, read by tshark and by flowtel: the same names and JA4 fingerprints.

tests/replay/tls.py FLOWTEL. Where the tshark here is too old for JA4 (before 4.2) and this is root on a machine with debootstrap, that
of a newer Debian is taken, in a directory of its own (TSHARK_ROOT, which is made once). Else the fingerprints are computed
from the fields that tshark decodes. The last line says how many hellos were the same."""
import collections
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import hellos
import judge

ROOT = pathlib.Path(os.environ.get("TSHARK_ROOT", pathlib.Path(__file__).parents[2] / "target/tshark"))
FIELDS = {
    "port": "tcp.srcport", "name": "tls.handshake.extensions_server_name", "version": "tls.handshake.version",
    "versions": "tls.handshake.extensions.supported_version", "ciphers": "tls.handshake.ciphersuite",
    "extensions": "tls.handshake.extension.type", "protocols": "tls.handshake.extensions_alpn_str",
    "signatures": "tls.handshake.sig_hash_alg",
}


def has_ja4(tshark):
    run = subprocess.run([*tshark, "-G", "fields"], capture_output=True, text=True)
    return "\ttls.handshake.ja4\t" in run.stdout


def newer():
    """A newer Debian's tshark, in its own root; None where there can be none."""
    if not (ROOT / "usr/bin/tshark").exists():
        if os.geteuid() != 0 or not shutil.which("debootstrap"):
            return None
        made = subprocess.run(["debootstrap", "--variant=minbase", "--include=tshark", "trixie", str(ROOT)], capture_output=True)
        if made.returncode != 0:
            shutil.rmtree(ROOT, ignore_errors=True)
            return None
    return ["chroot", str(ROOT), "tshark"]


def is_grease(value):
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def ja4(row):
    """JA4 of what tshark decodes."""
    def values(name):
        return [v for v in (int(t, 0) for t in row[name].split(",") if t) if not is_grease(v)]

    ciphers, extensions, versions = values("ciphers"), values("extensions"), values("versions")
    version = max(versions) if versions else values("version")[0]
    version = {0x304: "13", 0x303: "12", 0x302: "11", 0x301: "10", 0x300: "s3", 2: "s2"}.get(version, "00")
    first = row["protocols"].split(",")[0]
    ends = first[0] + first[-1] if first else "00"
    count = lambda l: f"{min(len(l), 99):02}"  # noqa: E731
    text = lambda l: ",".join(f"{v:04x}" for v in l)  # noqa: E731
    digest = lambda t: hashlib.sha256(t.encode()).hexdigest()[:12] if t else "0" * 12  # noqa: E731
    listed = text(sorted(e for e in extensions if e not in (0, 16)))
    if values("signatures"):
        listed += "_" + text(values("signatures"))
    # Fields of signature_algorithms_cert have the same name: then nobody knows which ones count.
    last = "" if 50 in extensions else digest(listed)
    sni = "d" if 0 in extensions else "i"
    return f"t{version}{sni}{count(ciphers)}{count(extensions)}{ends}_{digest(text(sorted(ciphers)))}_{last}"


def of_tshark(tshark, capture, with_ja4):
    """Name and fingerprint by the client's port, of the first hello of each connection."""
    fields = dict(FIELDS, **({"ja4": "tls.handshake.ja4"} if with_ja4 else {}))
    path = capture
    if tshark[0] == "chroot":
        path = pathlib.Path("/tmp") / capture.name
        shutil.copy(capture, ROOT / "tmp" / capture.name)
    command = [*tshark, "-o", "tcp.reassemble_out_of_order:TRUE", "-n", "-r", str(path), "-Y", "tls.handshake.type==1", "-T", "fields", "-E", "separator=/t"]
    for field in fields.values():
        command += ["-e", field]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {}
    for line in run.stdout.splitlines():
        row = dict(zip(fields, line.split("\t")))
        found.setdefault(int(row["port"]), (row["name"].lower(), row["ja4"] if with_ja4 else ja4(row)))
    return found


def of_flowtel(flowtel, capture):
    records, code, said = judge.records(flowtel, capture, "--set", "capture.tls=true")
    if code != 0:
        sys.exit(f"flowtel: exit code {code}: {said}")
    found = collections.defaultdict(list)
    for record in records:
        if record["name"] == "flowtel.tls.client_hello":
            found[int(record["source.port"])].append((record.get("flowtel.tls.server_name", ""), record.get("flowtel.tls.ja4", "none")))
    return found


def is_same(wanted, got):
    """What tshark says, and all that flowtel says of a connection. Without a last part there is none to compare."""
    return got is not None and len(got) == 1 and got[0][0] == wanted[0] and got[0][1].startswith(wanted[1])


def main():
    flowtel = sys.argv[1]
    tshark = ["tshark"]
    with_ja4 = has_ja4(tshark)
    if not with_ja4 and (other := newer()) and has_ja4(other):
        tshark, with_ja4 = other, True
    said = list(hellos.all_of(flowtel))
    same, wrong = collections.Counter(), 0
    with tempfile.TemporaryDirectory(prefix="flowtel-tls-") as directory:
        # Each client's hellos are captures of their own, cut in each of four ways.
        groups = collections.defaultdict(list)
        for number, (client, data) in enumerate(said):
            groups[client].append((data, number % 4))
        for client, group in groups.items():
            capture = pathlib.Path(directory) / f"{client}.pcap"
            capture.write_bytes(hellos.pcap(group))
            wanted, got = of_tshark(tshark, capture, with_ja4), of_flowtel(flowtel, capture)
            for number in range(len(group)):
                port = 20000 + number
                if port in wanted and is_same(wanted[port], got.get(port)):
                    same[client] += 1
                else:
                    wrong += 1
                    print(f"FAILED {client} {number} in way {group[number][1]}: tshark {wanted.get(port)}, flowtel {got.get(port)}")
    version = subprocess.run([*tshark, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    judged = "its own JA4" if with_ja4 else "JA4 of its fields"
    print(f"{version}, {judged}: " + ", ".join(f"{client} {n}" for client, n in same.items()))
    print(f"{sum(same.values())} hellos are the same, {wrong} differ")
    return 1 if wrong or sum(same.values()) < 200 else 0


if __name__ == "__main__":
    sys.exit(main())
