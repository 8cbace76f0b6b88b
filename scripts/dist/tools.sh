#!/usr/bin/env bash
# Installs what a release is made with, each pinned, into target/dist-tools. What is there already stays.
. "$(dirname "$0")/lib.sh"
for program in git python3 gzip tar strip; do
    command -v "$program" >/dev/null || die "$program is missing"
done
if command -v rustup >/dev/null; then
    rustup toolchain list | grep -q "^$rust_pinned" || rustup toolchain install "$rust_pinned" --profile minimal
    have=$(rustup target list --toolchain "$rust_pinned" --installed)
    for arch in "${dist_arches[@]}"; do
        grep -qx "$arch-unknown-linux-musl" <<<"$have" || rustup target add --toolchain "$rust_pinned" "$arch-unknown-linux-musl"
    done
fi
pin_rust

# Not all of them say their version, so it is written down. Optimized: without that they take a minute to pack a binary.
crate() {
    [ -x "$tools/bin/$1" ] && [ "$(cat "$tools/$1.version" 2>/dev/null)" = "$2" ] && return
    CARGO_TARGET_DIR=$target/dist-tools/build cargo install --quiet --locked --root "$tools" "$1@$2" "${@:3}"
    echo "$2" >"$tools/$1.version"
}
crate cargo-deb "$cargo_deb_pinned"
crate cargo-generate-rpm "$cargo_generate_rpm_pinned"
crate cargo-about "$cargo_about_pinned" --features cli
crate cargo-cyclonedx "$cargo_cyclonedx_pinned"
rm -rf "$target/dist-tools/build"

wheels="ziglang==$zig_pinned cargo-zigbuild==$zigbuild_pinned certifi==$certifi_pinned"
if [ "$(cat "$tools/wheels" 2>/dev/null)" != "$wheels" ]; then
    # By its Python, not its pip: that one names the folder it was made in, and a checkout can be moved.
    "$tools/venv/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$tools/venv"
    # shellcheck disable=SC2086 # a list
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check $wheels
    echo "$wheels" >"$tools/wheels"
fi
