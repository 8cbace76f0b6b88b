#!/usr/bin/env bash
# Checks what a user of docker-compose.yml gets, without starting anything: the compose file with and without its profile,
# the collector's and Loki's configurations by their own programs (tests/stack/build.sh), every YAML and JSON file.
# A check whose tool the machine does not have is skipped, and says so. With --strict a skipped check is a failure.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
stack=${CARGO_TARGET_DIR:-$root/target}/stack
strict=${1:-}
passed=0 failed=0 skipped=0

# check WHAT COMMAND…: runs it; its output is shown only when it fails.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok      $what"
        passed=$((passed + 1))
    else
        echo "FAILED  $what"
        printf '%s\n' "$output" | sed 's/^/        /'
        failed=$((failed + 1))
    fi
}
skip() { echo "skipped $1: $2"; skipped=$((skipped + 1)); }

# === the compose file

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    compose=()
fi

# The file as Compose understands it, for the profile in $1.
resolved() { COMPOSE_PROFILES=$1 "${compose[@]}" --file docker-compose.yml --project-directory . config; }
sidecar() { "${compose[@]}" --file docker-compose.sidecar.yml --project-directory . config; }

# One group for all three, and flowtel with the rights of docs/sidecar.md alone.
one_group() {
    sidecar | python3 -c '
import os, re, sys, yaml
services = yaml.safe_load(sys.stdin)["services"]
assert len({s["cgroup_parent"] for s in services.values()}) == 1, "more than one group"
flowtel = services["flowtel"]
assert flowtel["cap_drop"] == ["ALL"] and sorted(flowtel["cap_add"]) == ["BPF", "CHOWN", "NET_ADMIN", "PERFMON", "SETGID", "SETPCAP", "SETUID"], flowtel
assert not {"pid", "network_mode", "privileged", "cgroup"} & set(flowtel), flowtel
for name, s in services.items():
    assert not s.get("ports"), f"{name} publishes ports"
    for a in s.get("command") or []:
        if m := re.fullmatch(r"--config=/etc/otelcol/(.+)", a):
            assert os.path.isfile("config/collector/" + m[1]), f"{name}: config/collector/{m[1]} is not there"
'
}

# Nothing may be reachable from another machine, and the collector must find the files that its arguments name.
sound() {
    resolved "$1" | python3 -c '
import os, re, sys, yaml
services = yaml.safe_load(sys.stdin)["services"]
for name, s in services.items():
    for p in s.get("ports", []):
        host = p.get("host_ip") if isinstance(p, dict) else p.rsplit(":", 2)[0]
        assert host == "127.0.0.1", f"{name} publishes {p} wider than loopback"
    for a in s.get("command") or []:
        if m := re.fullmatch(r"--config=/etc/otelcol/(.+)", a):
            assert os.path.isfile("config/collector/" + m[1]), f"{name}: config/collector/{m[1]} is not there"
    assert s.get("privileged") is not True, f"{name} is privileged"
assert services["flowtel"]["cap_drop"] == ["ALL"]
'
}

# How much of the host a service could reach, by systemd's own measure, at its start: flowtel gives up the rest by itself.
exposed() {
    local most=$1 unit level
    unit=$(mktemp -d)
    cp config/flowtel.service "$unit/"
    if [ -n "${2:-}" ]; then mkdir "$unit/flowtel.service.d" && cp "$2" "$unit/flowtel.service.d/"; fi
    level=$(systemd-analyze security --offline=yes --no-pager "$unit/flowtel.service" | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
    rm -r "$unit"
    echo "exposure $level, at most $most"
    awk -v level="$level" -v most="$most" 'BEGIN { exit !(level != "" && level + 0 <= most + 0) }'
}
if systemd-analyze security --help 2>/dev/null | grep -q -- --offline; then
    check "exposure of config/flowtel.service" exposed 2.3
    check "exposure with config/flowtel-no-helper.conf" exposed 1.8 config/flowtel-no-helper.conf
else
    skip config/flowtel.service "systemd-analyze of systemd 250 or newer is not here"
fi

have_yaml=no
if python3 -c 'import yaml' 2>/dev/null; then have_yaml=yes; fi

if [ ${#compose[@]} -gt 0 ]; then
    for profile in "" elastic; do
        check "docker-compose.yml, profile '${profile:-none}' (${compose[*]})" resolved "$profile"
        if [ $have_yaml = yes ]; then
            check "loopback ports and configuration files, profile '${profile:-none}'" sound "$profile"
        fi
    done
    check "docker-compose.sidecar.yml (${compose[*]})" sidecar
    if [ $have_yaml = yes ]; then check "one group and few rights, docker-compose.sidecar.yml" one_group; fi
else
    skip docker-compose.yml "neither docker compose nor docker-compose is here"
fi

# === the collector

if [ -x "$stack/otelcol" ]; then
    otelcol() {
        local args=() file
        for file; do args+=(--config "config/collector/$file.yaml"); done
        "$stack/otelcol" validate "${args[@]}"
    }
    for files in sidecar "loki forward-none" "loki forward-elastic" "elastic elastic-none" "elastic elastic-ecs" "elastic elastic-opensearch"; do
        # shellcheck disable=SC2086 # a list of names
        check "collector: $files" otelcol $files
    done
else
    skip collector "run tests/stack/build.sh otelcol"
fi

# === Loki

if [ -x "$stack/loki" ]; then
    check "config/loki/loki.yaml" "$stack/loki" -verify-config -config.file=config/loki/loki.yaml
else
    skip config/loki/loki.yaml "run tests/stack/build.sh loki (minutes)"
fi

# === versions, files, scripts

# same WHAT A B: both must be there and alike.
same() {
    if [ -n "$1" ] && [ "$1" = "$2" ]; then return 0; fi
    echo "'$1' is not '$2'"
    return 1
}
image() { sed -n "s|.*image: $1:v\{0,1\}\([0-9.]*\).*|\1|p" docker-compose.yml | sort -u; }
check "the collector of the tests is the one of the compose file" same \
    "$(image otel/opentelemetry-collector-contrib)" "$(sed -n 's/^  version: //p' tests/stack/otelcol/builder.yaml)"
check "Loki of the tests is the one of the compose file" same \
    "$(image grafana/loki)" "$(sed -n 's|^require github.com/grafana/loki/v3 v||p' tests/stack/loki/go.mod)"

if [ $have_yaml = yes ]; then
    # Duplicate keys are what a YAML parser would let through without a word.
    check "YAML and JSON under config/" python3 - <<'PY'
import json, pathlib, yaml

class Strict(yaml.SafeLoader):
    pass

def mapping(loader, node):
    keys = [loader.construct_object(k) for k, _ in node.value]
    twice = {k for k in keys if keys.count(k) > 1}
    assert not twice, f"{node.start_mark}: twice: {twice}"
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
def once(pairs):
    assert len(pairs) == len(dict(pairs)), f"a key twice among {[k for k, _ in pairs]}"
    return dict(pairs)

files = [*pathlib.Path(".").glob("docker-compose*.yml"), *pathlib.Path("config").rglob("*.y*ml")]
for f in files:
    yaml.load(f.read_text(), Strict)
for f in pathlib.Path("config").rglob("*.json"):
    json.loads(f.read_text(), object_pairs_hook=once)
PY
else
    skip "YAML and JSON under config/" "python3 with yaml is not here (Debian: python3-yaml)"
fi

if command -v shellcheck >/dev/null; then
    check "shell scripts" shellcheck tests/stack/*.sh config/elastic/*.sh
else
    skip "shell scripts" "shellcheck is not here"
fi

echo "stack: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && { [ "$strict" != --strict ] || [ "$skipped" -eq 0 ]; }
