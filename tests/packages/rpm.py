"""The rpm by rpm's own tools, and installed into a root: rpm.py OLD.rpm NEW.rpm CACHE SUITE

The root is Debian's, for there are no others here: what the package depends on by name is looked at, not resolved.
"""

import pathlib
import subprocess
import sys

from machine import Machine


def rpm(*args):
    done = subprocess.run(["rpm", *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"rpm {' '.join(map(str, args))}: {done.stdout}{done.stderr}"
    return done.stdout


def ok(text):
    print(f"  ok: {text}", flush=True)


def looked_at(package):
    # No signature is known here: that of a release is cosign's, over all sums.
    assert "digests OK" in rpm("-K", "--nosignature", package)
    listed = rpm("-qp", "--nosignature", "--qf", "[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]", package)
    files = {line.split()[0]: [line.split()[1].lstrip("0"), *line.split()[2:]] for line in listed.splitlines()}
    assert files["/usr/bin/flowtel"][:2] == ["100755", "root:root"], files
    assert files["/etc/flowtel/flowtel.toml"] == ["100640", "root:flowtel", "cn"], files["/etc/flowtel/flowtel.toml"]
    assert files["/usr/lib/systemd/system/flowtel.service"][0] == "100644", files
    assert "/usr/share/man/man1/flowtel.1.gz" in files and "/usr/share/zsh/site-functions/_flowtel" in files
    ok(f"digests; {len(files)} files with their modes, owners and flags (configuration: config(noreplace), root:flowtel 0640)")
    requires = rpm("-qp", "--nosignature", "--requires", package).split("\n")
    assert any(line.startswith("/bin/sh") for line in requires), requires
    assert not any(line.startswith("lib") for line in requires), f"a static binary needs no libraries: {requires}"
    scripts = rpm("-qp", "--nosignature", "--scripts", package)
    for kind in ("preinstall", "postinstall", "preuninstall", "postuninstall"):
        assert f"{kind} scriptlet" in scripts, scripts
    ok("four scripts; no library is required")
    for line in subprocess.run(["rpmlint", package], capture_output=True, text=True, check=False).stdout.splitlines():
        print(f"      {line}")


def main():
    old, new, cache, suite = sys.argv[1:]
    looked_at(old)
    with Machine(suite, pathlib.Path(cache)) as machine:
        root = machine.root

        def install(package, *options):
            # Dependencies by name are another distribution's; its scripts run within the root.
            rpm("--root", root, "--nosignature", "--nodeps", "--ignorearch", *options, package)

        install(old, "-i")
        assert machine.out("stat", "-c", "%U:%G %a", "/etc/flowtel/flowtel.toml") == "root:flowtel 640"
        assert machine.out("getent", "passwd", "flowtel").endswith("nologin")
        machine.run("systemctl", "daemon-reload")
        assert machine.property("flowtel", "LoadState") == "loaded"
        machine.run("flowtel", "check")
        machine.run("systemctl", "start", "flowtel")
        assert machine.property("flowtel", "ActiveState") == "active"
        machine.run("systemctl", "stop", "flowtel")
        ok("installed into a root: user, group, mode; flowtel check all ok; the unit starts and stops")
        config = root / "etc/flowtel/flowtel.toml"
        config.write_text("# an administrator's\n" + config.read_text())
        install(new, "-U")
        assert config.read_text().startswith("# an administrator's\n")
        before, after = (pathlib.Path(p).name.split("-")[1] for p in (old, new))
        assert machine.out("flowtel", "--version") == f"flowtel {after}"
        install(old, "-U", "--oldpackage")
        assert machine.out("flowtel", "--version") == f"flowtel {before}"
        assert config.read_text().startswith("# an administrator's\n")
        ok(f"upgraded to {after} and downgraded to {before}: the changed configuration stays")
        rpm("--root", root, "-e", "flowtel")
        assert not (root / "usr/bin/flowtel").exists() and not (root / "usr/lib/systemd/system/flowtel.service").exists()
        assert (root / "etc/flowtel/flowtel.toml.rpmsave").exists()
        ok("removed: the changed configuration is kept as .rpmsave")


main()
