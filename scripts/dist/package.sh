#!/usr/bin/env bash
# Makes tar.gz, deb, rpm and SBOM of one architecture, out of what binary.sh built and stage.sh laid out: package.sh x86_64|aarch64
. "$(dirname "$0")/lib.sh"
arch=${1:?which architecture: ${dist_arches[*]}}
triple=$arch-unknown-linux-musl
pin_rust
release=$target/$triple/release
mkdir -p "$dist"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# === tar.gz: the program, what belongs beside it, and the unit as it is in the sources
name=flowtel-$version-$arch-linux-musl
folder=$scratch/$name
mkdir "$folder"
cp "$release/flowtel" config/flowtel.service config/flowtel.toml packaging/sysusers.d/flowtel.conf "$folder/"
cp -r "$release/dist/man" "$release/dist/completions" "$folder/"
cp "$release"/dist/doc/* "$folder/"
gzip -d "$folder"/*.gz
mv "$folder/changelog" "$folder/CHANGELOG.md"
chmod -R u=rwX,go=rX "$folder"
tar --sort=name --owner=0 --group=0 --numeric-owner --format=ustar --mtime="@$SOURCE_DATE_EPOCH" -C "$scratch" -c "$name" |
    gzip -n9 >"$dist/$name.tar.gz"

# === deb
cargo deb --quiet --no-build --no-strip --locked -p flowtel --target "$triple" --output "$scratch/flowtel.deb"
cp "$scratch/flowtel.deb" "$dist/flowtel_$version-1_$(deb_arch "$arch").deb"

# === rpm: the host that builds is not told
cargo generate-rpm -p exporter --target "$triple" --payload-compress zstd -o "$scratch/flowtel.rpm"
cp "$scratch/flowtel.rpm" "$dist/flowtel-$version-1.$(rpm_arch "$arch").rpm"

# === SBOM: CycloneDX, of this architecture's dependencies. It is written beside each manifest, so in a copy of them.
tar -c --exclude=tests/stack Cargo.toml Cargo.lock bench common exporter tests | tar -x -C "$scratch"
(cd "$scratch" && cargo cyclonedx --quiet --manifest-path exporter/Cargo.toml --format json --spec-version 1.5 --target "$triple" \
    --no-build-deps --override-filename sbom)
python3 scripts/dist/sbom.py "$scratch/exporter/sbom.json" "$scratch" >"$dist/flowtel-$version-$arch.cdx.json"
