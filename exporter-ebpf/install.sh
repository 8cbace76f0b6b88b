#!/usr/bin/env bash
# Installs what exporter-ebpf/build.sh needs, on Debian 12 and newer, as root. Does nothing where it is there.
set -euo pipefail
packages=(rustc-web cargo-web libstd-rust-web-dev-bpf rust-web-src llvm-22 llvm-22-dev libpolly-22-dev libzstd-dev zlib1g-dev)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "install.sh: needs root to install ${missing[*]}" >&2; exit 77; }
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
if ! command -v bpf-linker >/dev/null || ! bpf-linker --version | grep -qx 'bpf-linker 0.13.0'; then
    LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22
fi
