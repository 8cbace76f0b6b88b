#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [SECONDS [TARGET...]] (60 seconds, all targets).
# Wants a nightly Rust (rustup toolchain install nightly) and cargo-fuzz, which it installs. Skips where it can't, and says
# why; fails only where a target does. What made it fail is left in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
version=0.13.2
skip() { echo "fuzz: skipped: $*" >&2; exit 0; }

command -v rustup >/dev/null || skip "there is no rustup, so no nightly Rust beside the stable one"
rustup toolchain list | grep -q '^nightly' || skip "there is no nightly Rust: rustup toolchain install nightly"
# The sanitizer's runtime is linked by a C++ compiler.
command -v c++ >/dev/null || skip "a C++ compiler is missing (Debian: apt-get install g++)"
if ! cargo fuzz --version 2>/dev/null | grep -qx "cargo-fuzz $version"; then
    cargo install cargo-fuzz --version "$version" --locked || skip "cargo-fuzz $version can't be installed"
fi

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
python3 fuzz/seeds.py fuzz/corpus
for target in "${targets[@]}"; do
    echo "=== fuzz $target for $seconds s"
    words=()
    [ -f "fuzz/$target.dict" ] && words=("-dict=fuzz/$target.dict")
    # With debug assertions, so that it sees what overflows.
    cargo +nightly fuzz run --dev "$target" -- \
        "-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "${words[@]}" 2>&1 |
        grep -vE '^(#[0-9]+|INFO|\s*(Compiling|Running|Finished|Fresh))' || [ "${PIPESTATUS[0]}" = 0 ]
done
