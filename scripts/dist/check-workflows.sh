#!/usr/bin/env bash
# The workflows' syntax by actionlint (built from its Go module), the scripts of releases and package tests by shellcheck.
. "$(dirname "$0")/lib.sh"
actionlint_pinned=v1.7.7
if [ "$("$tools/bin/actionlint" -version 2>/dev/null | head -n 1)" != "$actionlint_pinned" ]; then
    command -v go >/dev/null || die "actionlint is built by Go, and there is none (Debian: apt-get install golang-go)"
    GOBIN=$tools/bin go install "github.com/rhysd/actionlint/cmd/actionlint@$actionlint_pinned"
fi
"$tools/bin/actionlint" .github/workflows/*.yml
# Targets that a workflow calls must be there.
sed 's/^ *#.*//' .github/workflows/*.yml | grep -oE '\bmake [a-z0-9-]+' | awk '{ print $2 }' | sort -u | while read -r name; do
    grep -q "^$name:" Makefile || die "a workflow calls make $name, which is no target"
done
if command -v shellcheck >/dev/null; then
    shellcheck -x -P SCRIPTDIR scripts/dist/*.sh tests/packages/*.sh packaging/rpm/*.sh --shell=bash -e SC1091
    echo "workflows and scripts: ok"
else
    echo "workflows: ok (shellcheck is not there: the scripts were not looked at)"
fi
