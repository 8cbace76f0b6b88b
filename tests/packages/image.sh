#!/usr/bin/env bash
# The image unpacked as an engine does it, and run, for both architectures: image.sh FILE-oci.tar VERSION
set -euo pipefail
tar=$1 version=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/layout"
tar -xf "$tar" -C "$scratch/layout"
# Each blob is what its name says, and what is named is there.
(cd "$scratch/layout/blobs/sha256" && sha256sum -- * | awk '$1 != $2 { print "blob " $2 " is " $1; bad = 1 } END { exit bad }')
python3 - "$scratch/layout" <<'EOF'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
blob = lambda entry: json.loads((folder / "blobs" / entry["digest"].replace(":", "/")).read_text())
index = json.loads((folder / "index.json").read_text())
seen = []
for entry in blob(index["manifests"][0])["manifests"]:
    manifest = blob(entry)
    for part in [manifest["config"], *manifest["layers"]]:
        assert (folder / "blobs" / part["digest"].replace(":", "/")).stat().st_size == part["size"], part
    config = blob(manifest["config"])
    assert config["architecture"] == entry["platform"]["architecture"]
    seen.append(entry["platform"]["architecture"])
    # umoci takes an image, not an index: each gets a name of its own.
    index["manifests"].append(
        {k: entry[k] for k in ("mediaType", "digest", "size")}
        | {"annotations": {"org.opencontainers.image.ref.name": entry["platform"]["architecture"]}}
    )
assert sorted(seen) == ["amd64", "arm64"], seen
(folder / "index.json").write_text(json.dumps(index))
EOF
for arch in amd64 arm64; do
    umoci unpack --image "$scratch/layout:$arch" "$scratch/$arch" >/dev/null
    root=$scratch/$arch/rootfs
    size=$(du -sb "$root" | cut -f1)
    [ "$size" -le $((15 << 20)) ] || { echo "$arch: $size bytes, more than 15 MiB"; exit 1; }
    files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
    wanted="./etc/ssl/certs/ca-certificates.crt ./flowtel ./licenses/LICENSE ./licenses/LICENSE-MIT ./licenses/THIRD-PARTY-LICENCES.txt "
    [ "$files" = "$wanted" ] || { echo "$arch holds: $files"; exit 1; }
    case $arch:$(uname -m) in
        amd64:x86_64 | arm64:aarch64) said=$(chroot "$root" /flowtel --version) ;;
        arm64:*)
            cp "$(command -v qemu-aarch64-static)" "$root/qemu"
            said=$(chroot "$root" /qemu /flowtel --version)
            chroot "$root" /qemu /flowtel schema | cmp - "$(dirname "$0")/../../docs/schema.md"
            ;;
        *) echo "$arch: this machine can't run it"; exit 1 ;;
    esac
    [ "$said" = "flowtel $version" ] || { echo "$arch says $said"; exit 1; }
    echo "  ok: $arch: $size bytes, no shell, runs: $said"
done
