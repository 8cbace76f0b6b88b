#!/usr/bin/env bash
# Writes what passed on an emulated machine into the table of a page: platforms.sh FILE ARCH KERNEL OUTPUT
# The row of the same architecture and minor version of the kernel is replaced; the rest of the page stays.
set -euo pipefail
file=$1 arch=$2 kernel=$3 output=$4
commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no -- . ":!$file")" ] || commit="$commit, changed"
rows=$(sed -n 's/^row: \(.*\): pass$/\1/p' "$output" | paste -sd , | sed 's/,/, /g')
scenarios=$(sed -n 's/^test result: ok\. \([0-9]*\) passed; 0 failed; \([0-9]*\) ignored.*/\1 passed, \2 ignored/p' "$output")
minor=$(cut -d. -f1-2 <<<"$kernel")
row="| $arch | $kernel | $commit | $rows | ${scenarios:-–} |"
awk -v arch="$arch" -v minor="$minor" -v row="$row" '
    $0 == "<!-- rows: end -->" {
        lines[++n] = row
        fflush()
        # By architecture, then by version.
        sort = "sort -t \"|\" -k 2,2 -k 3,3V"
        for (i = 1; i <= n; i++) print lines[i] | sort
        close(sort)
        on = 0
    }
    on && /^\| (x86_64|aarch64) / {
        split($0, cell, / *\| */)
        if (cell[2] != arch || index(cell[3] ".", minor ".") != 1) lines[++n] = $0
        next
    }
    { print }
    $0 == "<!-- rows: begin -->" { on = 1 }
' "$file" >"$file.new"
mv "$file.new" "$file"
