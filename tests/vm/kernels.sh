#!/usr/bin/env bash
# Boots Debian's cloud kernels under qemu, without KVM, and runs the real flowtel in each: every program must load and
# attach, and connections over IPv4 and IPv6, their ends and a refused attempt must come out as records, none lost.
#   tests/vm/kernels.sh [SUITE ...]     bullseye (5.10), bookworm (6.1), sid (the newest); all three without an argument
# Kernels are kept in target/vm. An emulator that crashes is tried again, at most twice, and that is shown.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/vm"
work=$(realpath "$target/vm")
flowtel=$(realpath "${FLOWTEL:-$target/debug/flowtel}")
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bullseye bookworm sid)
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
[ -x "$flowtel" ] || { echo "kernels: $flowtel is missing: cargo build -p flowtel" >&2; exit 69; }
missing=()
for package in qemu-system-x86 busybox-static cpio; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || skip_all "missing: ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# Where this machine gets Debian from, for whatever release.
mirror() {
    { grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } |
        head -n 1 | sed 's, *$,,; s,/$,,' | grep . || echo http://deb.debian.org/debian
}

# The kernel of a suite, unpacked; prints its folder.
kernel() {
    local suite=$1 state=$work/apt-$1 into=$work/$1 package
    if [ -d "$into" ]; then
        echo "$into"
        return
    fi
    mkdir -p "$state/lists/partial" "$state/archives"
    local main
    main=$(mirror)
    echo "deb $main $suite main" >"$state/sources.list"
    [ "$suite" = sid ] || echo "deb ${main}-security $suite-security main" >>"$state/sources.list"
    local apt=(-q -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state" -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update >&2
    package=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    [ -n "$package" ] || { echo "kernels: $suite has no cloud kernel" >&2; return 1; }
    # Of late the image package holds nothing but a dependency on the one that does.
    while [ -n "$package" ]; do
        (cd "$state" && apt-get "${apt[@]}" download "$package" >&2)
        dpkg-deb -x "$state/$package"_*.deb "$into.new"
        if compgen -G "$into.new/boot/vmlinuz*" >/dev/null || compgen -G "$into.new/usr/lib/modules/*/vmlinuz*" >/dev/null; then
            break
        fi
        package=$(dpkg-deb -f "$state/$package"_*.deb Depends | sed 's:[,|]:\n:g' | sed 's/(.*//; s/ //g' |
            grep -E '^linux-(binary|image|vmlinuz|kernel|main)' | head -n 1 || true)
    done
    [ -n "$package" ] || { echo "kernels: no kernel found in the packages of $suite" >&2; return 1; }
    mv "$into.new" "$into"
    rm -rf "$state"
    echo "$into"
}

# The kernel's modules that list TCP sockets, where the folder has them.
modules() {
    local folder=$1 root=$2 module
    rm -rf "$root/modules"
    mkdir "$root/modules"
    for module in inet_diag tcp_diag; do
        find "$folder" -name "$module.ko" -exec cp {} "$root/modules" \;
    done
}

# The guest's root: busybox, flowtel with its libraries, and what the guest does.
initramfs() {
    local root=$1 library
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,lib,lib64,etc,www}
    cp "$(command -v busybox)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$flowtel" "$root/bin/flowtel"
    strip "$root/bin/flowtel" 2>/dev/null || true
    for library in $(ldd "$flowtel" | grep -oE '/[^ ]+'); do
        mkdir -p "$root/$(dirname "$library")"
        cp -L "$library" "$root/$library"
    done
    echo "0123456789abcdef0123456789abcdef" >"$root/etc/machine-id"
    echo "127.0.0.1 localhost" >"$root/etc/hosts"
    cp tests/vm/guest.sh "$root/init"
    chmod +x "$root/init"
}

uname_of() {
    sed -n 's/^.*Linux \([0-9].*\)$/\1/p' "$1" | head -n 1
}

boot() {
    timeout 240 qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 1024 -nographic -no-reboot -nic none \
        -kernel "$1" -initrd "$2" -append "console=ttyS0 quiet panic=-1 rdinit=/init" </dev/null 2>&1 | tr -d '\r' || true
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
    (cd "$scratch/root" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initrd"
    for attempt in 1 2 3; do
        boot "$image" "$scratch/initrd" >"$scratch/$suite"
        grep -q '^guest: ' "$scratch/$suite" && break
        echo "kernels: $suite: the emulator did not come to an end (try $attempt of 3)"
    done
    if grep -q '^guest: pass' "$scratch/$suite"; then
        echo "kernels: $suite: $(uname_of "$scratch/$suite"): pass"
        passed=$((passed + 1))
    else
        echo "kernels: $suite: $(uname_of "$scratch/$suite"): FAIL"
        tail -n 60 "$scratch/$suite"
        failed=$((failed + 1))
    fi
done
finish
