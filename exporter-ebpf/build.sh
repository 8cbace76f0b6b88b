#!/usr/bin/env bash
# Builds the kernel object: exporter-ebpf/build.sh OUTPUT
#
# Wants a Rust whose core library can be had for BPF, bpf-linker and llvm-strip:
#   Debian 12:   apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev libpolly-22-dev libzstd-dev zlib1g-dev
#                LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22
#   elsewhere:   rustup component add rust-src; cargo install bpf-linker --version 0.13.0; LLVM's llvm-strip
# No path of this machine goes into the object, so the same compiler gives the same bytes everywhere.
set -euo pipefail
out=$(realpath -m "${1:?usage: build.sh OUTPUT}")
cd "$(dirname "$0")"
root=$(realpath ..)
target=${CARGO_TARGET_DIR:-$root/target/ebpf}
command -v bpf-linker >/dev/null || { echo "build.sh: bpf-linker is missing; see the head of $0" >&2; exit 69; }

strip=${LLVM_STRIP:-$(command -v llvm-strip /usr/lib/llvm-2?/bin/llvm-strip | tail -n 1 || true)}
[ -n "$strip" ] || { echo "build.sh: llvm-strip is missing (Debian: llvm-22; rustup: llvm-tools)" >&2; exit 69; }

# Debian ships core for BPF built; a rustup toolchain builds it from rust-src.
rustc=${EBPF_RUSTC:-/usr/bin/rustc}
cargo=${EBPF_CARGO:-/usr/bin/cargo}
flags=()
if ! [ -x "$rustc" ] || ! [ -d "$("$rustc" --print sysroot)/lib/rustlib/bpfel-unknown-none" ]; then
    rustc=${EBPF_RUSTC:-$(command -v rustc)}
    cargo=${EBPF_CARGO:-$(command -v cargo)}
    flags=(-Zbuild-std=core)
fi
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
export RUSTC_BOOTSTRAP=1 RUSTC="$rustc" CARGO_TARGET_DIR="$target" CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=bpf-linker
remap=()
for index in "$registry"/*/; do
    [ -d "$index" ] && remap+=("--remap-path-prefix=${index%/}=/registry")
done
export RUSTFLAGS="-Cdebuginfo=2 -Clink-arg=--btf --cfg=bpf_target_arch=\"x86_64\" --remap-path-prefix=$root=/flowtel ${remap[*]}"
"$cargo" build --locked --release --target bpfel-unknown-none "${flags[@]}"
mkdir -p "$(dirname "$out")"
# BTF stays, for the verifier's messages; DWARF goes: it is three quarters of the bytes and nobody reads it.
"$strip" --strip-debug -o "$out" "$target/bpfel-unknown-none/release/flowtel"
chmod 644 "$out"
"$rustc" --version > "$out.compiler"
bpf-linker --version >> "$out.compiler"
