"""Makes the container image of both architectures as an OCI layout, without a container engine: the same bytes each time.

    image.py --version V --time SECONDS --out FILE.tar amd64=BINARY arm64=BINARY --file IMAGE_PATH=FILE ...

One layer, FROM scratch: the program, roots of TLS, licences. No shell, no package manager, no user: engines hand added
capabilities to root only. The layout is a tar that `skopeo copy oci-archive:FILE` and `docker load` (25 or newer) read.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import sys
import tarfile

LARGEST = 15 << 20  # of one architecture, unpacked


class Layout:
    """The blobs of an OCI layout, each named by its own sum."""

    def __init__(self):
        self.blobs = {}

    def add(self, media_type, data, **more):
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)} | more

    def add_json(self, media_type, value, **more):
        return self.add(media_type, as_json(value), **more)


def as_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def layer(files, time):
    """A tar of `files` (path in the image: (bytes, mode)), with the folders that they are in."""
    folders = {path.rsplit("/", n)[0] for path in files for n in range(1, path.count("/") + 1)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted(folders - set(files)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, time
            tar.addfile(entry)
        for path, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(data), mode, time
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def image(layout, arch, files, time, version):
    tar = layer(files, time)
    size = sum(len(data) for data, _ in files.values())
    if size > LARGEST:
        sys.exit(f"image: {arch} has {size} bytes, more than {LARGEST}")
    packed = layout.add("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(tar, 9, mtime=0))
    created = datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": "flowtel",
        "org.opencontainers.image.description": "Watches TCP connections begin in the Linux kernel and ships each "
        "as an OpenTelemetry log record",
        "org.opencontainers.image.source": "https://github.com/flowtel/flowtel",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0 AND (MIT OR GPL-2.0-only)",
    }
    config = {
        "architecture": arch,
        "os": "linux",
        "created": created,
        "config": {"Entrypoint": ["/flowtel"], "Labels": labels, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
        "history": [{"created": created, "created_by": "scripts/dist/image.py"}],
    }
    if arch == "arm64":
        config["variant"] = "v8"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layout.add_json("application/vnd.oci.image.config.v1+json", config),
        "layers": [packed],
        "annotations": labels,
    }
    platform = {"os": "linux", "architecture": arch} | ({"variant": "v8"} if arch == "arm64" else {})
    print(f"image: {arch}: {size / (1 << 20):.1f} MiB, packed {packed['size'] / (1 << 20):.1f} MiB")
    return layout.add_json("application/vnd.oci.image.manifest.v1+json", manifest, platform=platform)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True)
    parser.add_argument("--time", required=True, type=int)
    parser.add_argument("--out", required=True)
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("binaries", nargs="+")
    args = parser.parse_args()
    shared = {}
    for pair in args.file:
        path, file = pair.split("=", 1)
        shared[path.lstrip("/")] = (open(file, "rb").read(), 0o644)
    layout = Layout()
    manifests = []
    for pair in args.binaries:
        arch, file = pair.split("=", 1)
        files = {"flowtel": (open(file, "rb").read(), 0o755)} | shared
        manifests.append(image(layout, arch, files, args.time, args.version))
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }
    top = layout.add_json("application/vnd.oci.image.index.v1+json", index)
    top["annotations"] = {"org.opencontainers.image.ref.name": args.version}
    outer = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [top]}
    files = {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"}), "index.json": as_json(outer)}
    files |= {f"blobs/sha256/{digest}": data for digest, data in layout.blobs.items()}
    with open(args.out, "wb") as out:
        out.write(layer({path: (data, 0o644) for path, data in files.items()}, args.time))


main()
