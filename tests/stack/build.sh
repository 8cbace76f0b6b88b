#!/usr/bin/env bash
# Builds the third-party servers that the tests talk to, from Go modules pinned by a committed go.sum.
#   tests/stack/build.sh otelcol [loki] [grafana] [elasticsearch] [opensearch] [prometheus]     (or: all)
# Of Elasticsearch and OpenSearch Maven has minimal distributions (no Kibana or Dashboards, few modules); Prometheus is Debian's.
# Each lands in target/stack/NAME-HASH, HASH being that of everything it is built from; target/stack/NAME points at it.
# Up to date means: nothing is done, and Go is not needed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${CARGO_TARGET_DIR:-$root/target}/stack

say() { printf 'stack: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# What is built, and how. The recipe is part of the hash.
package() {
    case $1 in
        otelcol) echo . ;;
        loki) echo github.com/grafana/loki/v3/cmd/loki ;;
        grafana) echo . ;; # no Grafana, but what reads its files by its published types
        elasticsearch) echo org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.0:zip ;;
        prometheus) echo prometheus ;; # a package of Debian
        opensearch) echo org.opensearch.distribution.integ-test-zip:opensearch:2.19.1:zip ;;
        *) die "unknown server '$1': otelcol, loki, grafana, elasticsearch, opensearch, prometheus or all" ;;
    esac
}
# -mod=readonly: what is not in go.mod and go.sum is not built. So the checksum database has nothing to add (GOSUMDB=off),
# and machines that can reach only a module proxy build too.
flags=(-mod=readonly -trimpath -buildvcs=false)
ldflags='-s -w'

hash_of() {
    (
        cd "$here/$1"
        export LC_ALL=C
        { printf '%s\n' "$(package "$1")" "${flags[*]}" "$ldflags"; cat -- *.go go.mod go.sum; } | sha256sum | cut -c1-16
    )
}

need_go() {
    local want have
    want=$(sed -n 's/^go //p' "$here/$1/go.mod")
    command -v go >/dev/null ||
        die "Go $want or newer is needed to build $1, and there is no 'go' here. Debian: apt-get install golang-go (from backports where the release's own is older), else https://go.dev/dl"
    # Asked inside the module: a newer Go may switch its tool chain for it, an older one says only what it is.
    have=$(cd "$here/$1" && go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
    if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" != "$want" ]; then
        die "Go $want or newer is needed to build $1; $(GOTOOLCHAIN=local go version 2>/dev/null || echo 'this one') is too old. Debian: apt-get install golang-go (from backports where the release's own is older), else https://go.dev/dl"
    fi
}

build() {
    local name=$1 pkg hash dest start
    pkg=$(package "$name")
    [ -f "$here/$name/go.mod" ] || die "$here/$name/go.mod is missing"
    hash=$(hash_of "$name")
    dest=$out/$name-$hash
    if [ ! -x "$dest" ]; then
        need_go "$name"
        mkdir -p "$out"
        say "building $name ($(du -sh "$here/$name" | cut -f1) of sources, the rest from modules; minutes when nothing is cached) …"
        start=$SECONDS
        # Under another name until it is whole, so that an interrupted build is never taken for a finished one.
        (cd "$here/$name" && GOSUMDB=off CGO_ENABLED=0 GOWORK=off GOFLAGS='' \
            nice go build "${flags[@]}" -ldflags "$ldflags" -o "$dest.part.$$" "$pkg") ||
            { rm -f "$dest.part.$$"; die "go build of $name failed, see above"; }
        mv "$dest.part.$$" "$dest"
        say "built $name in $((SECONDS - start)) s: $(du -h "$dest" | cut -f1) $dest"
    else
        say "$name is up to date"
    fi
    ln -sfn "$name-$hash" "$out/$name"
}

# Takes a distribution from Maven Central and unpacks it.
fetch() {
    local name=$1 artifact dest
    artifact=$(package "$name")
    dest=$out/$name-$(cut -d: -f3 <<<"$artifact")
    if [ ! -x "$dest/bin/$name" ]; then
        if ! command -v mvn >/dev/null || ! command -v java >/dev/null; then
            if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
                die "Java 17 and Maven are needed for $name. Debian: apt-get install maven openjdk-17-jre-headless"
            fi
            apt-get update -q >&2
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends maven openjdk-17-jre-headless unzip >&2
        fi
        say "fetching $artifact (100 MB) …"
        rm -rf "$dest.part"
        mkdir -p "$dest.part"
        mvn -q -B dependency:copy -Dartifact="$artifact" -DoutputDirectory="$dest.part" >&2 || die "Maven could not fetch $artifact"
        (cd "$dest.part" && unzip -q ./*.zip && mv "$name"-*/ unpacked) || die "the archive of $name can't be unpacked"
        chmod -R a+rX "$dest.part/unpacked"
        rm -rf "$dest"
        mv "$dest.part/unpacked" "$dest"
        rm -rf "$dest.part"
    else
        say "$name is up to date"
    fi
    ln -sfn "$(basename "$dest")" "$out/$name"
}

# Unpacks Debian's package of Prometheus, without installing it: an installed one would be started.
unpack_prometheus() {
    if [ ! -x "$out/prometheus" ]; then
        command -v apt-get >/dev/null || die "Prometheus is taken from Debian's package, and there is no apt-get here"
        rm -rf "$out/prometheus.part"
        mkdir -p "$out/prometheus.part"
        (cd "$out/prometheus.part" && apt-get -q download prometheus >&2 && dpkg -x prometheus_*.deb .) || die "apt-get could not fetch prometheus"
        mv "$out/prometheus.part/usr/bin/prometheus" "$out/prometheus"
        rm -rf "$out/prometheus.part"
    else
        say "prometheus is up to date"
    fi
}

[ $# -gt 0 ] || die "usage: tests/stack/build.sh otelcol|loki|grafana|elasticsearch|opensearch|prometheus|all …"
for name; do [ "$name" = all ] || package "$name" >/dev/null; done # a wrong name is told before minutes of building
for name; do
    case $name in
        all) for each in otelcol loki grafana; do build "$each"; done; fetch elasticsearch; fetch opensearch; unpack_prometheus ;;
        prometheus) unpack_prometheus ;;
        elasticsearch | opensearch) fetch "$name" ;;
        *) build "$name" ;;
    esac
done
