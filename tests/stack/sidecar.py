#!/usr/bin/env python3
"""docker-compose.sidecar.yml on a real, modern docker engine: Debian trixie's, in a chroot, a mount, network and pid namespace
of its own. What the app does is recorded, what its neighbour does is not, restarts of the app are followed.

No image can be expected to be at hand, so images are made here under the names that the file has: flowtel as it was built,
the tests' own collector, and busybox as the app. Wants root, debootstrap (or an engine in target/stack/engine), busybox-static."""
import json, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ENGINE = TARGET / "stack" / "engine"
PACKAGES = "docker.io,docker-compose,docker-cli,iptables,iproute2,procps,ca-certificates"
FLOWTEL = pathlib.Path(os.environ.get("FLOWTEL", TARGET / "debug" / "flowtel"))
WORK = "/srv/flowtel-sidecar"
N = 5


def need():
    if os.geteuid() != 0: sys.exit("sidecar: this wants root")
    for path in (FLOWTEL, TARGET / "stack" / "otelcol"):
        if not path.exists(): sys.exit(f"sidecar: {path} is missing: cargo build -p flowtel, tests/stack/build.sh otelcol")
    if not shutil.which("busybox"): sys.exit("sidecar: busybox is missing (Debian: apt-get install busybox-static)")
    if not (ENGINE / "usr/sbin/dockerd").exists():
        if not shutil.which("debootstrap"): sys.exit("sidecar: debootstrap is missing (Debian: apt-get install debootstrap)")
        print("sidecar: fetching trixie's docker (a minute) …", flush=True)
        shutil.rmtree(ENGINE, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "trixie", str(ENGINE)], check=True,
                       stdout=subprocess.DEVNULL)


# The engine's first process: its own root, the host's tree of cgroups, and dockerd. Whatever it starts ends with it.
INIT = r"""
set -e
ip link set lo up
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys 2>/dev/null || mount --rbind /sys sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o size=3g tmpfs var/lib/docker
mount -t tmpfs tmpfs var/lib/containerd
mount --rbind /dev dev
mkdir -p old
pivot_root . old
umount -l /old
exec chroot . /usr/sbin/dockerd --host unix:///run/docker.sock --storage-driver overlay2 --log-level warn
"""


class Engine:
    def __init__(self):
        self.log = open(TARGET / "stack" / "engine.log", "w")
        (ENGINE / "var/lib/containerd").mkdir(parents=True, exist_ok=True)
        (ENGINE / "var/lib/docker").mkdir(parents=True, exist_ok=True)
        self.outer = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", INIT, "sh", str(ENGINE)],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        end = time.time() + 90
        while time.time() < end:
            if self.outer.poll() is not None: sys.exit(f"sidecar: the engine ended with {self.outer.returncode}, see {self.log.name}")
            self.inner = self.child()
            if self.inner and self.run("docker", "info", check=False).returncode == 0: return
            time.sleep(0.5)
        sys.exit(f"sidecar: the engine did not answer within 90 s, see {self.log.name}")

    def child(self):
        try: return int(pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()[0])
        except (OSError, IndexError): return None

    def run(self, *words, check=True, stdin=None, seconds=180):
        """A command next to the engine."""
        done = subprocess.run(["nsenter", f"--target={self.inner}", "--mount", "--net", "--pid", "--root", "--wd=/", *words],
                              input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"})
        if check and done.returncode: sys.exit(f"sidecar: {' '.join(words)}: {done.stderr.decode()}{done.stdout.decode()}")
        return done

    def docker(self, *words, **more): return self.run("docker", *words, **more).stdout.decode()

    def compose(self, *words, project="one", group="flowtel-sidecar-one", **more):
        return self.run("env", f"SIDECAR_CGROUP={group}", "docker", "compose", "-p", project, "-f", f"{WORK}/docker-compose.sidecar.yml",
                        *words, **more).stdout.decode()

    def image(self, name, files, *changes):
        with tempfile.TemporaryDirectory() as folder:
            for inside, path in files.items():
                to = pathlib.Path(folder + inside)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)
                to.chmod(0o755)
            (pathlib.Path(folder) / "tmp").mkdir(exist_ok=True)
            tar = subprocess.run(["tar", "-C", folder, "-c", "."], check=True, stdout=subprocess.PIPE).stdout
        self.run("docker", "import", *[word for change in changes for word in ("--change", change)], "-", name, stdin=tar)

    def end(self):
        self.outer.send_signal(signal.SIGTERM)
        if self.inner:
            try: os.kill(self.inner, signal.SIGKILL)
            except ProcessLookupError: pass
        self.outer.wait(30)
        # The containers are gone with their pid namespace; their cgroups are left.
        for group in pathlib.Path("/sys/fs/cgroup").glob("**/flowtel-sidecar-*"): subprocess.run(["find", str(group), "-depth", "-type", "d", "-delete"])


def libraries(program):
    """What a program is linked with, by the paths that it looks for."""
    said = subprocess.run(["ldd", str(program)], stdout=subprocess.PIPE, text=True).stdout
    return {path: path for path in re.findall(r"(/\S+) \(0x", said)}


def records(engine, project, group):
    """What the collector's log shows: each record's event and attributes."""
    text = engine.compose("logs", "--no-log-prefix", "--no-color", "otel-collector", project=project, group=group)
    found = []
    for part in text.split("LogRecord #")[1:]:
        record = dict(re.findall(r"-> ([\w.]+): \w+\((.*?)\)\n", part))
        event = re.search(r"EventName: (\S+)", part)
        record["event"] = event[1] if event else ""
        found.append(record)
    return found


def until(what, probe, seconds=40):
    end = time.time() + seconds
    while True:
        value = probe()
        if value: return value
        if time.time() > end: sys.exit(f"sidecar: {what} did not come within {seconds} s")
        time.sleep(0.5)


def main():
    need()
    engine = Engine()
    try:
        busybox = shutil.which("busybox")
        # Any file will do as the page.
        engine.image("nginx:1.29", {"/bin/busybox": busybox, "/www/index.html": ROOT / "LICENSE-MIT"},
                     'CMD ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]')
        engine.image("otel/opentelemetry-collector-contrib:0.145.0", {"/otelcol": (TARGET / "stack/otelcol").resolve()},
                     'ENTRYPOINT ["/otelcol"]')
        engine.image("flowtel:local", {"/flowtel": FLOWTEL, **libraries(FLOWTEL)}, 'ENTRYPOINT ["/flowtel"]')
        inside = ENGINE / WORK.lstrip("/")
        shutil.rmtree(inside, ignore_errors=True)
        (inside / "config").mkdir(parents=True)
        shutil.copy(ROOT / "docker-compose.sidecar.yml", inside)
        shutil.copytree(ROOT / "config/collector", inside / "config/collector")
        (ENGINE / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")

        projects = {"one": "flowtel-sidecar-one", "two": "flowtel-sidecar-two"}
        started = time.time()
        for project, group in projects.items(): engine.compose("up", "-d", project=project, group=group)
        print(f"two sidecars came up in {time.time() - started:.0f} s", flush=True)

        def log(project): return engine.compose("logs", "--no-log-prefix", "flowtel", project=project, group=projects[project])
        for project in projects: until(f"flowtel of {project}", lambda: "watching TCP connections below a cgroup" in log(project))
        for project in projects:
            assert "WARN" not in log(project) and "self-test" not in log(project), log(project)

        # The neighbour: a server that both apps and a stranger ask.
        beside = ["--network", "one_default", "--cgroup-parent", "flowtel-sidecar-beside", "nginx:1.29"]
        engine.docker("run", "-d", "--name", "server", *beside)
        address = json.loads(engine.docker("inspect", "server"))[0]["NetworkSettings"]["Networks"]["one_default"]["IPAddress"]
        engine.docker("run", "-d", "--name", "stranger", *beside)

        def ask(run):
            for _ in range(N): run("/bin/busybox", "nc", "-w", "5", address, "80")
        request = b"GET /index.html HTTP/1.0\r\n\r\n"
        def app(project):
            return lambda *words: engine.compose("exec", "-T", "app", *words, project=project, group=projects[project], stdin=request)
        def container(project): return engine.compose("ps", "-q", "app", project=project, group=projects[project]).strip()

        def told(project, wanted):
            """Begins to the server, by container, once `wanted` came."""
            def probe():
                begins = [r for r in records(engine, project, projects[project])
                          if r["event"] == "flowtel.tcp.flow.begin" and r.get("destination.address") == address]
                return begins if len(begins) >= wanted else None
            return until(f"{wanted} begins of {project}", probe)

        before = container("one")
        ask(app("one"))
        ask(lambda *words: engine.docker("exec", "-i", "stranger", *words, stdin=request))
        told("one", N)
        engine.compose("restart", "app")
        ask(app("one"))
        told("one", 2 * N)
        engine.compose("up", "-d", "--force-recreate", "app")
        after = container("one")
        assert before != after
        ask(app("one"))
        begins = told("one", 3 * N)
        time.sleep(2)
        begins = told("one", 3 * N)
        assert len(begins) == 3 * N, f"{len(begins)} begins instead of {3 * N}"
        ids = [r.get("container.id") for r in begins]
        assert sorted(ids) == sorted([before] * 2 * N + [after] * N), (ids, before, after)
        names = {r.get("process.executable.name") or r.get("thread.name") for r in begins}
        assert names == {"busybox"} or names == {"nc"}, names
        everything = records(engine, "one", projects["one"])
        assert len(everything) == 2 * 3 * N, f"{len(everything)} records: not only the app's begins and ends: {[(r['event'], r.get('thread.name')) for r in everything]}"
        assert len({r["log.record.uid"] for r in everything}) == len(everything)
        assert records(engine, "two", projects["two"]) == [], "the other sidecar told of its neighbour"
        print(f"{3 * N} connections of the app, {len(everything)} records; the stranger's {N} and the agents' own: none; "
              f"restart and a new container followed", flush=True)
        # Last: its test connections are those of another process than the running flowtel's, and are recorded.
        check = engine.compose("exec", "-T", "flowtel", "/flowtel", "check")
        assert "FAIL" not in check, check
        print("flowtel check: nothing fails", flush=True)
        for project, group in projects.items(): engine.compose("down", "-t", "5", project=project, group=group, check=False)
        engine.docker("rm", "-f", "server", "stranger")
    finally:
        engine.end()
    print("sidecar: all holds")


main()
