"""A Debian root with a real systemd as process 1, in namespaces and a cgroup of its own.

The root is made by debootstrap once and kept; each machine writes into a layer above it that goes with it. Nothing of it
reaches the host: no network but its own loopback, no process outside, programs attached to its own cgroup alone.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PACKAGES = "systemd,systemd-sysv,dbus,iproute2,procps,python3-minimal,ca-certificates"
SYSTEMD = """
set -e
cd "$1"
mount -t proc proc proc -o nosuid,noexec,nodev
mount -t sysfs sysfs sys -o nosuid,noexec,nodev
mount -t cgroup2 cgroup2 sys/fs/cgroup -o nosuid,noexec,nodev
mount -t bpf bpf sys/fs/bpf -o mode=0700
mount -t tmpfs tmpfs dev -o mode=755
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs tmp -o mode=1777
mkdir -p .old
pivot_root . .old
hostname flowtel-packages
exec env -i container=flowtel PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    sh -c 'umount -l /.old; exec /lib/systemd/systemd --unit=multi-user.target' </dev/null >/dev/null 2>&1
"""


# A test that is stopped from outside takes its machine down, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def cgroup2():
    """Where the host has cgroup v2: alone, or beside v1."""
    for line in open("/proc/self/mounts", encoding="utf-8"):
        fields = line.split()
        if fields[2] == "cgroup2":
            return pathlib.Path(fields[1])
    raise RuntimeError("no cgroup v2 is mounted here")


def base(suite, cache):
    """The root of a Debian suite as debootstrap makes it."""
    root = cache / f"root-{suite}"
    if not (root / ".complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, root],
            check=True, stdout=subprocess.DEVNULL,
        )
        (root / ".complete").touch()
    return root


class Machine:
    """A booted root; use it by `with`."""

    def __init__(self, suite, cache):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="flowtel-packages-"))
        self.root = self.scratch / "root"
        self.cgroup = cgroup2() / f"flowtel-packages-{os.getpid()}-{suite}"
        self.lower = base(suite, cache)
        self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        # A file system of its own under the layer: an overlay can't lie on an overlay, which a container's root is.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", self.scratch], check=True)
        for folder in ("root", "upper", "work"):
            (self.scratch / folder).mkdir()
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", self.root,
             "-o", f"lowerdir={self.lower},upperdir={self.scratch}/upper,workdir={self.scratch}/work"],
            check=True,
        )
        self.cgroup.mkdir()
        join = f"echo $$ > {self.cgroup}/cgroup.procs && exec \"$@\""
        self.process = subprocess.Popen(
            ["sh", "-c", join, "sh", "unshare", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--pid", "--fork",
             "--propagation", "private", "sh", "-c", SYSTEMD, "sh", self.root],
        )
        deadline = time.monotonic() + 120
        while True:
            self.init = self.find_init()
            if self.init:
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                # "degraded" too: a kernel without modules fails systemd-modules-load.service.
                if state in ("running", "degraded"):
                    return
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("systemd did not come up")
            time.sleep(0.5)

    def find_init(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        return None

    def __exit__(self, *_):
        if self.cgroup.exists():
            (self.cgroup / "cgroup.kill").write_text("1")
        if self.process:
            self.process.wait()
        for _ in range(100):
            folders = sorted((f for f in self.cgroup.rglob("*") if f.is_dir()), reverse=True)
            try:
                for folder in [*folders, self.cgroup]:
                    folder.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.1)
        subprocess.run(["umount", "-l", self.root], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", self.scratch], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def run(self, *command, check=True, timeout=120):
        """Runs a command beside systemd, outside its units; returns its outcome."""
        full = ["nsenter", "-t", self.init, "-m", "-u", "-i", "-n", "-p", "-C", "--", *map(str, command)]
        done = subprocess.run(full, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, *command, **options):
        """What a command prints."""
        return self.run(*command, **options).stdout.strip()

    def unit(self, name, *command):
        """Starts a command as a transient unit, within the cgroups that flowtel watches there."""
        self.run("systemd-run", "--quiet", f"--unit={name}", "--collect", *command)

    def property(self, unit, name):
        """A property of a unit."""
        return self.out("systemctl", "show", "-P", name, unit)

    def put(self, source, path, mode=0o755):
        """Copies a file into the root."""
        into = self.root / path.lstrip("/")
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, into)
        into.chmod(mode)

    def write(self, path, text):
        """Writes a file in the root."""
        into = self.root / path.lstrip("/")
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_text(text, encoding="utf-8")

    def wait(self, what, condition, seconds=60):
        """Waits until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds} s")
            time.sleep(0.2)

    def status(self):
        """`flowtel status --json`, or None where nobody answers."""
        done = self.run("flowtel", "status", "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None
