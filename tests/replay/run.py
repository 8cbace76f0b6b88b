#!/usr/bin/env python3
"""Every capture that is made here, read by tshark and by flowtel: the same handshakes, and the tunnel's name.

tests/replay/run.py FLOWTEL [CAPTURE...]: with captures, those are read instead. The last line says how many passed."""
import collections
import gzip
import pathlib
import subprocess
import sys
import tempfile

import judge

passed, failed, skipped = [], [], []


def check(name, problems):
    (failed if problems else passed).append(name)
    if problems:
        print(f"FAILED {name}: " + "; ".join(problems))


def compare(flowtel, capture, name, tunnels=None):
    """Both read it: what differs."""
    wanted = judge.of_tshark(capture)
    found, code, said = judge.records(flowtel, capture)
    got = judge.begins(found)
    problems = []
    if code != 0:
        problems.append(f"exit code {code}: {said.strip().splitlines()[-1:]}")
    if wanted != got:
        problems.append(f"tshark {dict(wanted)}, flowtel {dict(got)}")
    if tunnels is not None:
        if not wanted:
            problems.append("tshark sees no handshake")
        for record in found:
            named, right = record.get("flowtel.tunnel.type"), tunnels[":" in record["destination.address"]]
            if named != right:
                problems.append(f"{record['name']} has tunnel {named}, not {right}")
        outer, code, _ = judge.records(flowtel, capture, "--decapsulate", "outer")
        expected = {d: n for d, n in wanted.items() if tunnels[":" in d[0][0]] is None}
        if dict(judge.begins(outer)) != expected:
            problems.append(f"outer: {dict(judge.begins(outer))}")
    check(name, problems)


def made(flowtel, directory):
    import captures
    import kernel

    def file(name, content):
        path = directory / name
        path.write_bytes(content)
        return path

    for name, content, tunnels in captures.cases():
        compare(flowtel, file(f"{name}.pcap", content), name, tunnels)
        if name == "ethernet":
            packed(flowtel, file, content)
            unknown(flowtel, file, content)
        if name == "enhanced-blocks-little":
            strange = content + captures.block("<", 0x777, b"1234") * 2
            named(flowtel, file("strange-block.pcapng", strange), "a-strange-block", "2 blocks of type 0x777")
    for name, content, tunnel in kernel.cases():
        if content is None:
            skipped.append(f"{name} ({tunnel})")
        else:
            compare(flowtel, file(f"{name}.pcap", content), name, (tunnel, tunnel))


def packed(flowtel, file, content):
    """The same capture packed: flowtel's answer is that of the plain one, and tshark's where it can unpack."""
    plain = file("plain.pcap", content)
    wanted = judge.of_tshark(plain)
    for tool, ending in (("gzip", "gz"), ("zstd", "zst"), ("lz4", "lz4"), ("xz", "xz")):
        run = subprocess.run([tool, "-c", str(plain)], capture_output=True, check=True)
        path = file(f"packed.pcap.{ending}", run.stdout)
        found, code, said = judge.records(flowtel, path)
        check(f"packed-{tool}", [] if (judge.begins(found), code) == (wanted, 0) else [f"exit {code}: {said}"])


def unknown(flowtel, file, content):
    """A link type that nobody knows is named, and has an exit code of its own."""
    path = file("unknown.pcap", content[:20] + (147).to_bytes(4, "little") + content[24:])
    named(flowtel, path, "an-unknown-link-type", "20 packets of link type 147")


def named(flowtel, path, name, words):
    _, code, said = judge.records(flowtel, path)
    check(name, [] if code == 76 and words in said else [f"exit code {code}: {said}"])


def main():
    flowtel, *given = sys.argv[1:]
    if given:
        for capture in given:
            compare(flowtel, capture, capture)
    else:
        with tempfile.TemporaryDirectory(prefix="flowtel-replay-") as directory:
            made(flowtel, pathlib.Path(directory))
    for name in skipped:
        print(f"skipped {name}")
    print(f"{len(passed)} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


sys.exit(main())
