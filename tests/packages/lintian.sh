#!/usr/bin/env bash
# What lintian says of packages: no error may be left, and each override must have a reason. lintian.sh FILE.deb ...
set -euo pipefail
overrides=$(dirname "$0")/../../packaging/deb/lintian-overrides
awk '/^#/ { reason = 1; next } NF { if (!reason) { print "an override without a reason: " $0; bad = 1 } reason = 0 } END { exit bad }' "$overrides"
for deb in "$@"; do
    # As root it warns; the profile is Debian's, whatever distribution runs this.
    out=$(lintian --allow-root --profile debian --show-overrides --tag-display-limit 0 "$deb" || true)
    echo "${deb##*/}:"
    while read -r line; do echo "  $line"; done <<<"$out"
    ! grep -q '^E:' <<<"$out" || { echo "lintian has errors"; exit 1; }
    # An override that overrides nothing is one too many.
    ! grep -q 'unused-override\|mismatched-override' <<<"$out" || { echo "an override is not needed"; exit 1; }
    echo "  0 errors, $(grep -c '^W:' <<<"$out" || true) warnings, $(grep -c '^O:' <<<"$out" || true) overridden"
done
