"""Images FROM scratch, as OCI archives that `ctr images import` takes: a program, and the libraries that it is linked to."""
import hashlib, io, json, pathlib, subprocess, tarfile


def libraries(program):
    """What a program needs beside itself, as paths: nothing where it is static."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True)
    words = (word for line in listed.stdout.splitlines() for word in line.split())
    return sorted({word for word in words if word.startswith("/")}) if listed.returncode == 0 else []


def layer(files):
    """A tar of `files` (place: file), with the folders that a runtime mounts over."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for place, file in files.items():
            data = pathlib.Path(file).read_bytes()
            entry = tarfile.TarInfo(place.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write(archive, name, place, program):
    """Writes the image `name`, with `program` as its entry point at `place`."""
    content = layer({place: program} | {library: library for library in libraries(program)})
    digest = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": [place], "Env": ["PATH=/"]},
                         "rootfs": {"type": "layers", "diff_ids": [digest(content)]}}).encode()
    oci = "application/vnd.oci.image"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json",
                           "config": {"mediaType": f"{oci}.config.v1+json", "digest": digest(config), "size": len(config)},
                           "layers": [{"mediaType": f"{oci}.layer.v1.tar", "digest": digest(content), "size": len(content)}]}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": f"{oci}.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}}]}).encode()
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    files |= {"blobs/sha256/" + digest(data)[7:]: data for data in (content, config, manifest)}
    with tarfile.open(archive, "w") as tar:
        for place, data in files.items():
            entry = tarfile.TarInfo(place)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
