#!/usr/bin/env bash
# The part of CHANGELOG.md that a version has: notes.sh VERSION; fails where it has none.
set -euo pipefail
cd "$(dirname "$0")/../.."
awk -v version="$1" '/^## \[/ { on = index($0, "## [" version "]") == 1; next } /^\[[^]]*\]: / { on = 0 } on { print; some = 1 } END { exit !some }' CHANGELOG.md
