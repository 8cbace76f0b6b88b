#!/usr/bin/env bash
# tests/replay/run.sh FLOWTEL [CAPTURE...]: run.py, and without captures tls.py, with what they need, which is installed where it can be: as root on Debian and
# its kin. Elsewhere it says SKIPPED, and what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
# The distribution's Python knows the distribution's scapy.
python=/usr/bin/python3
has_scapy() { "$python" -c "import scapy.all" >/dev/null 2>&1; }
declare -A package=([tshark]=tshark [ip]=iproute2 [zstd]=zstd [lz4]=lz4 [xz]=xz-utils)
missing=()
for command in "${!package[@]}"; do
    command -v "$command" >/dev/null || missing+=("${package[$command]}")
done
has_scapy || missing+=(python3-scapy)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
    else
        printf '\n!!! test-replay: SKIPPED, nothing was tested: missing: %s\n\n' "${missing[*]}" >&2
        exit 0
    fi
fi
export PYTHONDONTWRITEBYTECODE=1
if [ $# -gt 1 ]; then
    exec "$python" tests/replay/run.py "$@"
fi
"$python" tests/replay/run.py "$@"
# What TLS clients say, by clients that are here: tshark is the judge again.
exec "$python" tests/replay/tls.py "$@"
