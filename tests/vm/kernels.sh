#!/usr/bin/env bash
# Boots Debian's cloud kernels under qemu, without KVM, and runs the real flowtel in each. First a smoke test: every
# program must load and attach, and connections over IPv4 and IPv6, their ends and a refused attempt must come out as
# records, none lost. Then the table of scenarios (tests/tests/kernel), as on the host: same binary, real collector.
#   tests/vm/kernels.sh [SUITE ...]     bullseye (5.10), bookworm (6.1), trixie (6.12), sid (the newest); all without an argument
#   ROOMS=life,names                    these files of the table instead of all (15 to 25 minutes a kernel); ROOMS=proofs takes
#                                       the rows that prove what differs from kernel to kernel, ROOMS= leaves the table out
#   ONLY="a part of a row's name"       these rows of them
#   ARCH=aarch64                        an arm64 machine instead of an x86-64 one: the smoke test alone (FLOWTEL= a static binary for it)
#   PLATFORMS=docs/platforms.md         writes what passed into the table of that file
# Kernels are kept in target/vm. An emulator that crashes is tried again, at most twice, and that is shown.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/vm"
work=$(realpath "$target/vm")
flowtel=$(realpath "${FLOWTEL:-$target/debug/flowtel}")
arch=${ARCH:-x86_64}
case $arch in
    x86_64) debian=amd64 qemu=qemu-system-x86 rooms=${ROOMS-all} ;;
    # The scenarios would want a collector and tools of that architecture, too.
    aarch64) debian=arm64 qemu=qemu-system-arm rooms= ;;
    *) echo "kernels: ARCH is x86_64 or aarch64, not $arch" >&2; exit 64 ;;
esac
only=${ONLY:-}
# The rows' limits of time are meant for real machines.
patience=8
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bullseye bookworm trixie sid)
passed=0 failed=0 skipped=0

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
skip_all() {
    echo "kernels: skipped: $*"
    skipped=${#suites[@]}
    finish
    exit
}

command -v apt-get >/dev/null || skip_all "kernels come from Debian's packages, and there is no apt-get"
table=
if [ -n "$rooms" ]; then
    table=$(ls -t "$target"/debug/deps/kernel-* 2>/dev/null | grep -v '\.d$' | head -n 1) || true
    [ -x "$table" ] || { echo "kernels: the scenarios are not built: cargo test -p flowtel-tests --no-run" >&2; exit 69; }
    [ -x "$target/stack/otelcol" ] || { echo "kernels: no collector: tests/stack/build.sh otelcol" >&2; exit 69; }
fi
[ -x "$flowtel" ] || { echo "kernels: $flowtel is missing: cargo build -p flowtel" >&2; exit 69; }
missing=()
for package in "$qemu" busybox-static cpio; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || skip_all "missing: ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

. tests/vm/debian.sh

# The kernel's modules that flowtel, the network of the scenarios and their rules need, as a tree that modprobe reads.
modules() {
    local folder=$1 root=$2 from version place
    rm -rf "$root/lib/modules"
    from=$(find "$folder" -path '*/modules/*/kernel' -type d | head -n 1)
    [ -n "$from" ] || return 0
    version=$(basename "$(dirname "$from")")
    for place in net/ipv4 net/ipv6 net/netfilter net/sched net/core net/mptcp net/packet net/netlink net/unix net/8021q \
        drivers/net/veth.ko drivers/net/veth.ko.xz drivers/net/dummy.ko lib crypto arch; do
        [ -e "$from/$place" ] || continue
        mkdir -p "$root/lib/modules/$version/kernel/$(dirname "$place")"
        cp -r "$from/$place" "$root/lib/modules/$version/kernel/$place"
    done
    find "$root/lib/modules" -name '*.ko.xz' -exec busybox unxz {} +
    : >"$root/lib/modules/$version/modules.order"
    : >"$root/lib/modules/$version/modules.builtin"
    busybox depmod -b "$root" "$version"
}

# Copies programs into the guest's root, with the libraries that they name: install_into ROOT PROGRAM...
install_into() {
    local root=$1 program library
    shift
    for program in "$@"; do
        mkdir -p "$root/bin"
        cp -L "$program" "$root/bin/"
        for library in $(ldd "$program" 2>/dev/null | grep -oE '/[^ ]+'); do
            mkdir -p "$root/$(dirname "$library")"
            [ -e "$root/$library" ] || cp -L "$library" "$root/$library"
        done
    done
}

# The guest's root: busybox, flowtel with its libraries, and what the guest does.
initramfs() {
    local root=$1
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,run,lib,lib64,etc,www}
    cp "$(busybox_of)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    ln -s ../bin/busybox "$root/sbin/modprobe"
    install_into "$root" "$flowtel"
    strip "$root/bin/flowtel" 2>/dev/null || true
    # Rust's own linker and musl make it for a foreign machine; for this one it is as any program.
    local foreign=()
    [ "$arch" = "$(uname -m)" ] || foreign=(--target "$arch-unknown-linux-musl" -C linker=rust-lld)
    rustc --edition 2024 -O "${foreign[@]}" -o "$scratch/resolver" tests/vm/resolver.rs
    install_into "$root" "$scratch/resolver"
    echo "0123456789abcdef0123456789abcdef" >"$root/etc/machine-id"
    echo "127.0.0.1 localhost" >"$root/etc/hosts"
    echo "root:x:0:0:root:/:/bin/sh" >"$root/etc/passwd"
    cp tests/vm/guest.sh "$root/init"
    chmod +x "$root/init"
    [ -n "$rooms" ] || return 0
    printf 'FLOWTEL_TESTS_ROOMS=%s\nFLOWTEL_TESTS_PATIENCE=%s\nonly="%s"\n' "$rooms" "$patience" "$only" >"$root/table"
    # As cargo has it: the scenarios find flowtel and the collector beside themselves.
    mkdir -p "$root"/target/{debug/deps,stack}
    cp "$table" "$root/target/debug/deps/kernel"
    mv "$root/bin/flowtel" "$root/target/debug/flowtel"
    ln -s /target/debug/flowtel "$root/bin/flowtel"
    install_into "$root" "$table"
    rm "$root/bin/$(basename "$table")"
    strip "$root/target/debug/deps/kernel"
    cp -L "$target/stack/otelcol" "$root/target/stack/otelcol"
    for program in ip nft setpriv; do
        ! command -v "$program" >/dev/null || install_into "$root" "$(command -v "$program")"
    done
}

uname_of() {
    sed -n 's/^.*Linux \([0-9].*\)$/\1/p' "$1" | head -n 1
}

# How long a guest may take: the smoke test, and the table.
limit=$(case $rooms in "") echo 240 ;; all) echo 7200 ;; *) echo 1800 ;; esac)

boot() {
    # By threads it is twice as fast. 6.12 crashes at random on two emulated CPUs.
    local cpus=2
    [ "$3" != trixie ] || cpus=1
    local machine=(-cpu max) console=ttyS0
    # "max" signs pointers there, which an emulator does slowly.
    [ "$arch" = x86_64 ] || machine=(-machine virt -cpu cortex-a72) console=ttyAMA0
    timeout "$limit" "qemu-system-$arch" -accel tcg,thread=multi "${machine[@]}" -smp "$cpus" -m 2560 -nographic -no-reboot -nic none \
        -kernel "$1" -initrd "$2" -append "console=$console quiet panic=-1 rdinit=/init" </dev/null 2>&1 | sed -u 's/\r//g' || true
}

# Says how a suite did: report SUITE OUTPUT
report() {
    local suite=$1 output=$2 version
    version=$(uname_of "$output")
    grep -E '^test .* \.\.\. ' "$output" | grep -vE '\.\.\. (ok|ignored)' | sed "s/^/kernels: $suite: /" || true
    # What this kernel can't do is left out, and why is said.
    grep -E '^test .* \.\.\. ignored' "$output" | sed "s/^/kernels: $suite: /" || true
    grep -E '^test result: ' "$output" | sed "s/^/kernels: $suite: /" || true
    grep -E '^row: ' "$output" | sed "s/^/kernels: $suite: /" || true
    if grep -q '^guest: pass' "$output" && { [ -z "$rooms" ] || grep -q '^table: pass' "$output"; }; then
        echo "kernels: $suite: $version: pass"
        passed=$((passed + 1))
        [ -z "${PLATFORMS:-}" ] || tests/vm/platforms.sh "$PLATFORMS" "$arch" "$version" "$output"
    else
        echo "kernels: $suite: $version: FAIL"
        if grep -q '^guest: pass' "$output"; then
            sed -n '/^failures:/,/^test result/p' "$output" | tail -n 400
        fi
        tail -n 60 "$output"
        failed=$((failed + 1))
    fi
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
initramfs "$scratch/root"
for suite in "${suites[@]}"; do
    if ! folder=$(kernel "$suite"); then
        echo "kernels: $suite: skipped: its kernel can't be had here"
        skipped=$((skipped + 1))
        continue
    fi
    image=$(find "$folder" -name 'vmlinuz*' -type f | head -n 1)
    modules "$folder" "$scratch/root"
    # Not packed: an emulated processor takes long to unpack.
    (cd "$scratch/root" && find . | cpio -o -H newc --quiet) >"$scratch/initrd"
    for attempt in 1 2 3; do
        boot "$image" "$scratch/initrd" "$suite" >"$scratch/$suite"
        grep -qE '^guest: FAIL|^table: ' "$scratch/$suite" && break
        [ -z "$rooms" ] && grep -q '^guest: ' "$scratch/$suite" && break
        echo "kernels: $suite: the emulator did not come to an end (try $attempt of 3)"
        # Whether it was the emulator or the guest: a crash of the guest says where.
        tail -n 60 "$scratch/$suite"
    done
    report "$suite" "$scratch/$suite"
done
finish
