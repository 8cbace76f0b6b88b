#!/usr/bin/env bash
# The static binary of one architecture, as all packages hold it: binary.sh x86_64|aarch64; prints where it is.
# Zig is the C compiler and linker of both: one pinned tool, with its own musl, whatever machine builds.
. "$(dirname "$0")/lib.sh"
arch=${1:?which architecture: ${dist_arches[*]}}
triple=$arch-unknown-linux-musl
pin_rust
path_flags
cargo zigbuild --quiet --locked --release -p flowtel --bin flowtel --target "$triple" >&2
binary=$target/$triple/release/flowtel
# A path of this machine in it would be another one elsewhere.
for folder in "$root" "$target" "${CARGO_HOME:-$HOME/.cargo}"; do
    if grep -qaF "$folder/" "$binary"; then
        die "$binary holds the path $folder of this machine"
    fi
done
echo "$binary"
