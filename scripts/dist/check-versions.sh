#!/usr/bin/env bash
# The same numbers wherever they are written: flowtel's version, its oldest Rust, and the Rust of releases.
#   check-versions.sh [TAG]    with a tag such as v0.1.0: also that it is this version, and that the changelog knows it
. "$(dirname "$0")/lib.sh"
failed=0
expect() { # expect FILE WHAT PATTERN: a line of the file matches
    grep -qE -- "$3" "$1" || { echo "check-versions: $1 does not say $2" >&2; failed=1; }
}
msrv=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
{ [ -n "$msrv" ] && [ -n "$version" ]; } || die "Cargo.toml has no version or no rust-version"
minor=${rust_pinned%.*}

# The kernel side shares common/ and is built by another, older Rust: its own number is lower.
expect common/Cargo.toml "version $version" "^version = \"${version//./\\.}\""
for member in exporter bench tests; do
    expect "$member/Cargo.toml" "rust-version.workspace = true" '^rust-version\.workspace = true$'
    expect "$member/Cargo.toml" "version.workspace = true" '^version\.workspace = true$'
done
expect Cargo.toml "flowtel-common $version" "^flowtel-common = .*version = \"${version//./\\.}\""
expect Cargo.toml "flowtel $version" "^flowtel = .*version = \"${version//./\\.}\""
expect README.md "Rust $msrv" "Rust \(${msrv//./\\.} or newer\)"
expect Makefile "Rust $msrv" "\(${msrv//./\\.} or newer\)"
expect Makefile "the oldest Rust $msrv" "^MSRV := ${msrv//./\\.}\$"
expect Dockerfile "the Rust of releases, $minor" "^FROM rust:${minor//./\\.}-"
expect .github/workflows/ci.yml "the Rust of releases, $rust_pinned" "default-toolchain ${rust_pinned//./\\.}\$"
expect RELEASING.md "the Rust of releases, $rust_pinned" "Rust ${rust_pinned//./\\.}"

layout=$(sed -n 's/^.*const LAYOUT: u64 = \([0-9]*\);$/\1/p' exporter/src/capture/pins/handover.rs)
queue=$(sed -n 's/^pub const VERSION: u32 = \([0-9]*\);$/\1/p' exporter/src/queue/disk/segment.rs)
schema=$(sed -n 's/^pub const VERSION: u8 = \([0-9]*\);$/\1/p' exporter/src/record/schema.rs)
formats="Layout of pinned maps: $layout. Queue on disk: format $queue. Schema of records: $schema."
# The newest part of the changelog that names formats names these.
newest=$(grep -m 1 '^- Layout of pinned maps:' CHANGELOG.md || true)
[ "$newest" = "- $formats" ] || { echo "check-versions: CHANGELOG.md should say: - $formats" >&2; failed=1; }

if [ $# -gt 0 ]; then
    [ "$1" = "v$version" ] || { echo "check-versions: the tag is $1, the version $version" >&2; failed=1; }
    "$(dirname "$0")/notes.sh" "$version" >/dev/null || { echo "check-versions: CHANGELOG.md has no part for $version" >&2; failed=1; }
fi
[ "$failed" = 0 ] || exit 1
echo "check-versions: flowtel $version, Rust $msrv or newer, releases by $rust_pinned; $formats"
