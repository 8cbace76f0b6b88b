#!/usr/bin/env bash
# Builds the kernel object.
#   exporter-ebpf/build.sh OUTPUT      writes OUTPUT and OUTPUT.origin (a hash of its sources, and the compiler)
#   exporter-ebpf/build.sh --origin    prints what OUTPUT.origin should say here, without building
#
# Wants a Rust whose core library can be had for BPF, bpf-linker and llvm-strip; exporter-ebpf/install.sh installs them on
# Debian. Elsewhere:
#   rustup component add rust-src; cargo install bpf-linker --version 0.13.0; LLVM's llvm-strip
# No path of this machine goes into the object, so the same compiler gives the same bytes everywhere.
set -euo pipefail
usage="usage: build.sh OUTPUT | --origin"
out=${1:?$usage}
[ "$out" = --origin ] || out=$(realpath -m "$out")
cd "$(dirname "$0")"
root=$(realpath ..)
die() { echo "build.sh: $*" >&2; exit 69; }

# Debian ships core for BPF built; a rustup toolchain builds it from rust-src.
rustc=${EBPF_RUSTC:-/usr/bin/rustc}
cargo=${EBPF_CARGO:-/usr/bin/cargo}
flags=()
if ! [ -x "$rustc" ] || ! [ -d "$("$rustc" --print sysroot)/lib/rustlib/bpfel-unknown-none" ]; then
    rustc=${EBPF_RUSTC:-$(command -v rustc)} || die "there is no Rust compiler; see the head of $0"
    cargo=${EBPF_CARGO:-$(command -v cargo)}
    flags=(-Zbuild-std=core)
fi
command -v bpf-linker >/dev/null || die "bpf-linker is missing; see the head of $0"
strip=${LLVM_STRIP:-$(command -v llvm-strip /usr/lib/llvm-2?/bin/llvm-strip | tail -n 1 || true)}
[ -n "$strip" ] || die "llvm-strip is missing; see the head of $0"

origin() {
    # What decides the bytes: every source but the tests', the locked dependencies, and this recipe.
    (cd "$root" && LC_ALL=C find exporter-ebpf common \( -name target -o -name tests.rs -o -name tests \) -prune -o \
        \( -name '*.rs' -o -name Cargo.toml -o -name Cargo.lock -o -name build.sh \) -type f -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | sed 's/ .*//; s/^/sources /'
    "$rustc" --version
    bpf-linker --version
}
if [ "$out" = --origin ]; then
    origin
    exit
fi

target=${CARGO_TARGET_DIR:-$root/target}/ebpf
export RUSTC_BOOTSTRAP=1 RUSTC="$rustc" CARGO_TARGET_DIR="$target" CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=bpf-linker
remap="--remap-path-prefix=$root=/flowtel"
for index in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    [ -d "$index" ] && remap="$remap --remap-path-prefix=${index%/}=/registry"
done
export RUSTFLAGS="-Cdebuginfo=2 -Clink-arg=--btf --cfg=bpf_target_arch=\"x86_64\" $remap"
"$cargo" build --locked --release --target bpfel-unknown-none "${flags[@]}"
mkdir -p "$(dirname "$out")"
# BTF stays, for the verifier's messages; DWARF goes: it is three quarters of the bytes and nobody reads it.
"$strip" --strip-debug -o "$out" "$target/bpfel-unknown-none/release/flowtel"
chmod 644 "$out"
# (Counted, not asked with -q: grep would leave early and the broken pipe would pass for "none".)
if [ "$("${strip%strip}nm" "$out" | grep -cE ' _R' || true)" != 0 ]; then
    die "a function was not put in line; its name holds a hash of this folder's path: llvm-nm $out shows which"
fi
origin > "$out.origin"
