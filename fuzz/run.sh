#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [SECONDS [TARGET...]] (60 seconds, all targets), as many at once as there
# are processors. First inputs are those of fuzz/seeds (captured) and of fuzz/seeds.py (made); what it finds on the way is
# kept in fuzz/corpus, what made a target fail in fuzz/artifacts.
# Wants Rust with the address sanitizer's runtime, as rustup's toolchains have it, a C++ compiler, and cargo-fuzz, which it
# installs. Where one of them can't be had it says SKIPPED and why; it fails only where a target does.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
version=0.13.2
skip() {
    printf '\n!!! fuzz: SKIPPED, nothing was fuzzed: %s\n\n' "$*" >&2
    exit 0
}

# The sanitizer and the coverage are unstable options; the stable compiler takes them when it is told to, and it is the
# one that everything else is built with. Another distribution's Rust may come without the runtime.
has_runtime() { compgen -G "$("$@" --print sysroot)/lib/rustlib/*/lib/librustc*asan*" >/dev/null; }
command -v cargo >/dev/null || skip "there is no Rust: https://rustup.rs has it"
if has_runtime rustc; then
    export RUSTC_BOOTSTRAP=1
    cargo=(cargo)
elif command -v rustup >/dev/null && rustup run nightly rustc --version >/dev/null 2>&1; then
    cargo=(cargo +nightly)
else
    skip "this Rust has no address sanitizer: https://rustup.rs has one that does"
fi
if ! command -v c++ >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends g++; } || true
fi
command -v c++ >/dev/null || skip "a C++ compiler is missing, which builds libFuzzer (Debian: apt-get install g++)"
if ! cargo fuzz --version 2>/dev/null | grep -qx "cargo-fuzz $version"; then
    env -u RUSTC_BOOTSTRAP cargo install cargo-fuzz --version "$version" --locked ||
        skip "cargo-fuzz $version can't be installed"
fi

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("${cargo[@]}" fuzz list)
python3 fuzz/seeds.py fuzz/corpus
# With debug assertions, so that it sees what overflows.
"${cargo[@]}" fuzz build --dev

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
fuzz() {
    local target=$1 words=()
    [ -f "fuzz/$target.dict" ] && words=("-dict=fuzz/$target.dict")
    "${cargo[@]}" fuzz run --dev "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        "-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "${words[@]}" >"$logs/$target" 2>&1
}
failed=()
finish() { # finish TARGET STATUS
    echo "=== fuzz $1, $seconds s: $([ "$2" = 0 ] && echo "nothing found" || echo FAILED)"
    if [ "$2" = 0 ]; then
        grep -E '^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)|^Done' "$logs/$1" || true
    else
        failed+=("$1")
        grep -vE '^(#[0-9]+|INFO|\s*(Compiling|Running|Finished|Fresh))' "$logs/$1" | tail -n 80
    fi
}
declare -A running=()
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    while [ ${#running[@]} -ge "$(nproc)" ]; do
        status=0
        wait -n -p pid "${!running[@]}" || status=$?
        finish "${running[$pid]}" "$status"
        unset "running[$pid]"
    done
    fuzz "$target" &
    running[$!]=$target
done
while [ ${#running[@]} -gt 0 ]; do
    status=0
    wait -n -p pid "${!running[@]}" || status=$?
    finish "${running[$pid]}" "$status"
    unset "running[$pid]"
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: failed: ${failed[*]}; the inputs are in fuzz/artifacts" >&2; exit 1; }
