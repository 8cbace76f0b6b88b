#!/usr/bin/env bash
# Checks that the checked-in kernel object belongs to the sources: built anew by the recorded compiler it must be the same
# bytes; built by another one it must pass the same kernel tests.
set -euo pipefail
cd "$(dirname "$0")/.."
object=exporter/bpf/flowtel.bpf.o
here=$(exporter-ebpf/build.sh --origin)
if [ "$(head -n 1 <<<"$here")" != "$(head -n 1 $object.origin)" ]; then
    echo "check.sh: $object was built from other sources than these: make ebpf" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
exporter-ebpf/build.sh "$work/flowtel.bpf.o"
if cmp -s "$work/flowtel.bpf.o" $object; then
    echo "kernel object: built anew, the same bytes"
elif [ "$here" = "$(cat $object.origin)" ]; then
    echo "check.sh: the same sources and the same compiler give other bytes than $object" >&2
    exit 1
else
    echo "kernel object: another compiler than the recorded one; it must pass the kernel tests"
    diff <(echo "$here") $object.origin || true
    cp $object "$work/checked-in"
    trap 'cp "$work/checked-in" '$object'; rm -rf "$work"' EXIT
    cp "$work/flowtel.bpf.o" $object
    cargo test -p flowtel-tests
fi
