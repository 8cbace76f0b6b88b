#!/usr/bin/env bash
# The packages of `make dist`, tried: lintian, the deb under real systemds, the rpm by rpm's own tools, the image unpacked.
#   run.sh [SUITE ...]     Debian suites whose roots boot: trixie and bookworm without an argument
# Needs root. Two more versions are built (some minutes): one that differs by its number alone, and one with other formats of pins and queue.
. "$(dirname "$0")/../../scripts/dist/lib.sh"
here=$root/tests/packages
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(trixie bookworm)
[ "$(id -u)" = 0 ] || die "test-packages boots roots and installs packages in them, which needs root"
[ -f "$dist/SHA256SUMS" ] || die "there are no packages: make dist"
(cd "$dist" && sha256sum --quiet --check SHA256SUMS) || die "the packages are not what was made: make dist"
step() { printf '\n=== %s (%s s)\n' "$*" "$SECONDS"; }

missing=()
for pair in debootstrap:debootstrap lintian:lintian rpm:rpm rpmlint:rpmlint umoci:umoci qemu-aarch64-static:qemu-user-static; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
cache=$target/packages
mkdir -p "$cache"

deb=$dist/flowtel_$version-1_amd64.deb
rpm=$dist/flowtel-$version-1.x86_64.rpm
next_version=${version%.*}.$((${version##*.} + 1))
next=$cache/next
# One whose pins and queue the others can't read.
newer_version=${version%.*}.$((${version##*.} + 2))
newer=$cache/newer

# The same sources with another number, at the same place: so nothing but flowtel itself is compiled again.
#   another_version NUMBER FOLDER [formats]    with the next layout of pins and format of the queue
another_version() {
    local copy=$cache/sources next_version=$1 next=$2
    rm -rf "$copy" "$next"
    mkdir -p "$copy" "$next"
    git archive HEAD | tar -x -C "$copy"
    if [ "${3:-}" = formats ]; then
        raise "$copy/exporter/src/capture/pins/handover.rs" 'const LAYOUT: u64 = '
        raise "$copy/exporter/src/queue/disk/segment.rs" 'pub const VERSION: u32 = '
    fi
    sed -i "s/version = \"$version\"/version = \"$next_version\"/" "$copy/Cargo.toml" "$copy/common/Cargo.toml"
    for crate in flowtel flowtel-bench flowtel-common flowtel-tests; do
        sed -i "/^name = \"$crate\"\$/{n;s/^version = .*/version = \"$next_version\"/}" "$copy/Cargo.lock"
    done
    mkdir -p "$copy/target"
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private bash -euc '
        mount --bind "$1" "$2/target"
        mount --rbind "$2" "$3"
        cd "$3"
        export CARGO_TARGET_DIR=$1
        scripts/dist/binary.sh x86_64
        scripts/dist/stage.sh x86_64
        FLOWTEL_DIST=$4 scripts/dist/package.sh x86_64
    ' bash "$target" "$copy" "$root" "$next"
    rm -rf "$copy"
}

# Adds one to the number behind these words: raise FILE WORDS
raise() {
    local number
    number=$(sed -n "s/^$2\([0-9]*\);\$/\1/p" "$1")
    [ -n "$number" ] || die "$1 has no \"$2\""
    sed -i "s/^$2$number;/$2$((number + 1));/" "$1"
}

step "lintian"
"$here/lintian.sh" "$dist"/*.deb

step "the image"
"$here/image.sh" "$dist/flowtel-$version-oci.tar" "$version"

step "version $next_version, for upgrades"
another_version "$next_version" "$next"
step "version $newer_version, with formats of its own"
another_version "$newer_version" "$newer" formats
step "the rpm, by rpm's own tools"
python3 "$here/rpm.py" "$rpm" "$next/flowtel-$next_version-1.x86_64.rpm" "$cache" trixie

step "the deb under systemd: ${suites[*]}"
[ -x "$target/stack/otelcol" ] || "$root/tests/stack/build.sh" otelcol
python3 "$here/deb.py" "$deb" "$next/flowtel_$next_version-1_amd64.deb" "$newer/flowtel_$newer_version-1_amd64.deb" "$target/stack/otelcol" "$cache" "${suites[@]}"
step "done"
