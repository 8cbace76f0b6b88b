#!/usr/bin/env bash
# Builds the third-party servers that the tests talk to, from Go modules pinned by a committed go.sum.
#   tests/stack/build.sh otelcol [loki] [grafana] [elasticsearch] [opensearch] [prometheus]     (or: all)
#   tests/stack/build.sh helm kubernetes coredns gateway node    (for tests/kubernetes; not part of "all")
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
        gateway) echo . ;;
        coredns) echo github.com/coredns/coredns ;;
        # Several programs: they land in a directory.
        kubernetes) echo k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-proxy,kube-scheduler,kubectl,kubelet} \
            ./etcd ./pause ./talker ;;
        # Of the same modules, for the chart's own tests want nothing else of them.
        helm) echo helm.sh/helm/v3/cmd/helm ;;
        # What debootstrap makes: the file system of the node.
        node) echo trixie containerd,runc,containernetworking-plugins,iptables,iproute2 ;;
        grafana) echo . ;; # no Grafana, but what reads its files by its published types
        elasticsearch) echo org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.0:zip ;;
        prometheus) echo prometheus ;; # a package of Debian
        opensearch) echo org.opensearch.distribution.integ-test-zip:opensearch:2.19.1:zip ;;
        *) die "unknown server '$1': otelcol, loki, grafana, elasticsearch, opensearch, prometheus, helm, kubernetes, coredns, gateway, node or all" ;;
    esac
}
# The folder of its go.mod.
module() { case $1 in helm) echo "$here/kubernetes" ;; *) echo "$here/$1" ;; esac; }
# -mod=readonly: what is not in go.mod and go.sum is not built. So the checksum database has nothing to add (GOSUMDB=off),
# and machines that can reach only a module proxy build too.
flags=(-mod=readonly -trimpath -buildvcs=false)
# What a program says its version is, where its own Makefile would set it. The API server refuses to be of version 0, and
# helm compares a chart's kubeVersion with what it was built for.
ldflags() {
    echo -s -w
    case $1 in helm | kubernetes) ;; *) return 0 ;; esac
    local minor
    minor=$(sed -n 's|^\tk8s.io/kubernetes v1\.\([0-9]*\)\..*|\1|p' "$here/kubernetes/go.mod")
    echo -X k8s.io/component-base/version.gitVersion="$(sed -n 's|^\tk8s.io/kubernetes ||p' "$here/kubernetes/go.mod")"
    echo -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor="$minor"
    echo -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor="$minor"
    echo -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor="$minor"
}

hash_of() {
    (
        cd "$(module "$1")"
        export LC_ALL=C
        { printf '%s\n' "$(package "$1")" "${flags[*]}" "$(ldflags "$1" | tr '\n' ' ' | sed 's/ $//')"; find . -name '*.go' -printf '%P\n' | sort | xargs cat --; cat -- go.mod go.sum; } | sha256sum | cut -c1-16
    )
}

need_go() {
    local want have
    want=$(sed -n 's/^go //p' "$(module "$1")/go.mod")
    command -v go >/dev/null ||
        die "Go $want or newer is needed to build $1, and there is no 'go' here. Debian: apt-get install golang-go (from backports where the release's own is older), else https://go.dev/dl"
    # Asked inside the module: a newer Go may switch its tool chain for it, an older one says only what it is.
    have=$(cd "$(module "$1")" && go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
    if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" != "$want" ]; then
        die "Go $want or newer is needed to build $1; $(GOTOOLCHAIN=local go version 2>/dev/null || echo 'this one') is too old. Debian: apt-get install golang-go (from backports where the release's own is older), else https://go.dev/dl"
    fi
}

build() {
    local name=$1 pkg hash dest start
    read -ra pkg <<<"$(package "$name" | tr '\n' ' ')"
    [ -f "$(module "$name")/go.mod" ] || die "$(module "$name")/go.mod is missing"
    hash=$(hash_of "$name")
    dest=$out/$name-$hash
    if [ ! -x "$dest" ]; then
        need_go "$name"
        mkdir -p "$out"
        say "building $name ($(du -sh "$(module "$name")" | cut -f1) of sources, the rest from modules; minutes when nothing is cached) …"
        start=$SECONDS
        # Under another name until it is whole, so that an interrupted build is never taken for a finished one.
        rm -rf "$dest.part.$$"
        [ ${#pkg[@]} = 1 ] || mkdir "$dest.part.$$"
        (cd "$(module "$name")" && GOSUMDB=off CGO_ENABLED=0 GOWORK=off GOFLAGS='' \
            nice go build "${flags[@]}" -ldflags "$(ldflags "$name" | tr '\n' ' ')" -o "$dest.part.$$" "${pkg[@]}") ||
            { rm -rf "$dest.part.$$"; die "go build of $name failed, see above"; }
        mv "$dest.part.$$" "$dest"
        say "built $name in $((SECONDS - start)) s: $(du -sh "$dest" | cut -f1) $dest"
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

# The file system of a node: a container runtime, its network plugins and iptables, from Debian.
node() {
    local suite packages dest
    read -r suite packages <<<"$(package node)"
    dest=$out/node-$(printf '%s' "$suite $packages" | sha256sum | cut -c1-16)
    if [ ! -x "$dest/usr/bin/containerd" ]; then
        [ "$(id -u)" = 0 ] || die "debootstrap wants to be root"
        command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap >&2 ||
            die "debootstrap is needed for the node's file system. Debian: apt-get install debootstrap"
        say "debootstrap of Debian $suite with $packages (a minute or two) …"
        mkdir -p "$out"
        rm -rf "$dest.part"
        nice debootstrap --variant=minbase --include="$packages" "$suite" "$dest.part" >"$dest.log" 2>&1 ||
            { tail -n 5 "$dest.log" >&2; die "debootstrap failed, $dest.log says why"; }
        rm -rf "$dest.part"/var/cache/apt/* "$dest.part"/var/lib/apt/lists/* "$dest.log"
        mv "$dest.part" "$dest"
    else
        say "node is up to date"
    fi
    ln -sfn "$(basename "$dest")" "$out/node"
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

[ $# -gt 0 ] || die "usage: tests/stack/build.sh otelcol|loki|grafana|elasticsearch|opensearch|prometheus|helm|kubernetes|coredns|gateway|node|all …"
for name; do [ "$name" = all ] || package "$name" >/dev/null; done # a wrong name is told before minutes of building
for name; do
    case $name in
        all) for each in otelcol loki grafana; do build "$each"; done; fetch elasticsearch; fetch opensearch; unpack_prometheus ;;
        node) node ;;
        prometheus) unpack_prometheus ;;
        elasticsearch | opensearch) fetch "$name" ;;
        *) build "$name" ;;
    esac
done
