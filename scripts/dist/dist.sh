#!/usr/bin/env bash
# A whole release in target/dist, of the commit that is checked out: RELEASING.md says what is in it.
#   scripts/dist/dist.sh               both architectures
#   ARCHES=x86_64 scripts/dist/dist.sh one, without the image of the other
here=$(dirname "$0")
. "$here/lib.sh"
read -ra arches <<<"${ARCHES:-${dist_arches[*]}}"
# Manual pages and completions are made by the program itself.
[ "${arches[0]}" = x86_64 ] || die "x86_64 is made first: ARCHES=\"x86_64 ...\""
[ -z "$(git status --porcelain --untracked-files=no)" ] || echo "dist: note: files differ from the commit" >&2

"$here/tools.sh"
rm -rf "$dist"
mkdir -p "$dist"
images=()
for arch in "${arches[@]}"; do
    echo "dist: $arch"
    binary=$("$here/binary.sh" "$arch")
    "$here/stage.sh" "$arch"
    "$here/package.sh" "$arch"
    images+=("$(oci_arch "$arch")=$binary")
done
roots=$(wheel certifi/cacert.pem)
gzip -dc "$target/x86_64-unknown-linux-musl/release/dist/doc/THIRD-PARTY-LICENCES.txt.gz" >"$dist/THIRD-PARTY-LICENCES.txt"
python3 "$here/image.py" --version "$version" --time "$SOURCE_DATE_EPOCH" --out "$dist/flowtel-$version-oci.tar" \
    --file "etc/ssl/certs/ca-certificates.crt=$roots" --file licenses/LICENSE=LICENSE --file licenses/LICENSE-MIT=LICENSE-MIT \
    --file "licenses/THIRD-PARTY-LICENCES.txt=$dist/THIRD-PARTY-LICENCES.txt" "${images[@]}"
(cd "$dist" && sha256sum -- * >../SHA256SUMS.new && mv ../SHA256SUMS.new SHA256SUMS)
(cd "$dist" && stat -c '%10s  %n' -- *)
