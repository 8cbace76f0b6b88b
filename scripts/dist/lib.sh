# What the scripts of a release share: pins, folders, and an environment in which the same commit gives the same bytes.
# Sourced, never run: . scripts/dist/lib.sh
# shellcheck disable=SC2034 # used by those that source it
set -euo pipefail

# === pins. A release is made by these and no others; a new one changes the bytes.
rust_pinned=1.95.0
zigbuild_pinned=0.24.1
zig_pinned=0.17.1
cargo_deb_pinned=3.8.0
cargo_generate_rpm_pinned=0.21.1
cargo_about_pinned=0.9.3
cargo_cyclonedx_pinned=0.5.9
# The roots of the web that images hold: Mozilla's, as Python's certifi publishes them.
certifi_pinned=2026.10.19.post1

# Architectures, by the names that Rust, Debian, RPM and OCI give them.
dist_arches=(x86_64 aarch64)
deb_arch() { case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; esac; }
rpm_arch() { echo "$1"; }
oci_arch() { deb_arch "$1"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$root"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target
tools=$target/dist-tools
# Where what goes into the packages is laid ready, and where the finished artefacts are.
stage=$target/dist-stage
dist=${FLOWTEL_DIST:-$target/dist}
PATH=$tools/bin:$tools/venv/bin:$PATH
# Out of a wheel, by its path: the one that the wheel's Python would start.
wheel() { compgen -G "$tools/venv/lib/python3*/site-packages/$1" || true; }
CARGO_ZIGBUILD_ZIG_PATH=$(wheel ziglang/zig)
export CARGO_ZIGBUILD_ZIG_PATH
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

# === the same bytes everywhere
# Permissions, order and time must not come from the machine.
umask 022
export LC_ALL=C TZ=UTC
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER

die() {
    echo "dist: $*" >&2
    exit 1
}

# The compiler that is pinned: by rustup where it is there, else the one on the way must be it.
pin_rust() {
    if command -v rustup >/dev/null; then export RUSTUP_TOOLCHAIN=$rust_pinned; fi
    rustc --version 2>/dev/null | grep -q "^rustc $rust_pinned " ||
        die "a release is built by Rust $rust_pinned: rustup toolchain install $rust_pinned --profile minimal"
}

# Flags that keep the machine's folders out of the binary: paths in panics of Rust, and in assertions of C.
path_flags() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} sysroot commit
    cargo_home=$(realpath "$cargo_home")
    sysroot=$(rustc --print sysroot)
    commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
    # The last that matches wins.
    RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
    RUSTFLAGS+=" --remap-path-prefix=$root=/flowtel --remap-path-prefix=$target=/target"
    CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$root=/flowtel -ffile-prefix-map=$target=/target"
    export RUSTFLAGS CFLAGS
}
