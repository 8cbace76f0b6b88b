"""The deb under a real systemd: installed, used, upgraded, downgraded, removed, purged, on the Debian suites that are named.

    deb.py OLD.deb NEW.deb NEWER.deb OTELCOL CACHE SUITE...

OLD and NEW have the same formats of pins and queue, NEWER has the next ones.

Needs root. Two connections' ends, three versions' restarts: each flow that the generator made is recorded exactly once.
"""

import os
import pathlib
import re
import sys
import time

import collected
from machine import Machine

COLLECTOR = """
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:4317}}}}
exporters: {file: {path: /var/lib/collector/records.jsonl, append: true, flush_interval: 100ms}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {logs: {receivers: [otlp], exporters: [file]}}
"""
CONFIG = pathlib.Path(__file__).resolve().parents[2] / "config"
# What an administrator sets: (section, key, value).
SETTINGS = [
    ("capture", "pin", '"/sys/fs/bpf/flowtel"'),
    ("export", "endpoint", '"http://127.0.0.1:4317"'),
    ("queue", "kind", '"disk"'),
]


def edited(text, section, key, value):
    """The shipped configuration with one key set: its line is there, behind a #."""
    pattern = re.compile(rf"(^\[{section}\]$(?:(?!^\[).)*?)^#?{key} = [^\n]*$", re.MULTILINE | re.DOTALL)
    out, count = pattern.subn(lambda found: f"{found[1]}{key} = {value}", text, count=1)
    assert count == 1, f"{section}.{key} isn't in the shipped configuration"
    return out


class Scenario:
    """One suite: a machine and what was made on it so far."""

    def __init__(self, machine, *debs):
        self.machine = machine
        self.old, self.new, self.newer = (pathlib.Path(deb) for deb in debs)
        self.next_port = 20000
        self.ports = set()
        self.steps = 0

    def done(self, text):
        self.steps += 1
        print(f"  ok: {text}", flush=True)

    # === tools

    def version_of(self, deb):
        return re.search(r"_([0-9.]+)-", deb.name).group(1)

    def install(self, deb, *options):
        self.machine.put(deb, f"/root/{deb.name}", 0o644)
        self.machine.run(
            "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends",
            *options, f"/root/{deb.name}", timeout=300,
        )

    def start_collector(self):
        self.machine.unit("collector", "/opt/otelcol", "--config", "/opt/collector.yaml")
        self.machine.wait("the collector", lambda: self.machine.run("ss", "-Hltn", "sport = :4317").stdout)

    def stop_collector(self):
        self.machine.run("systemctl", "stop", "collector")

    def begin_traffic(self, count, pause=0.0):
        """Starts a generator of at most so many connections; returns its unit's name."""
        name = f"traffic-{self.next_port}"
        self.machine.unit(name, "python3", "/opt/traffic.py", str(self.next_port), str(count), str(pause), f"/root/{name}")
        return name

    def progress(self, name):
        """The last source port that a generator used."""
        file = self.machine.root / "root" / name
        return int(file.read_text() or 0) if file.exists() else 0

    def running(self, name):
        return self.machine.property(name, "ActiveState") not in ("inactive", "failed")

    def end_traffic(self, name):
        """Waits for a generator's end, and notes what it did."""
        self.machine.wait(f"the end of {name}", lambda: not self.running(name), 120)
        last = self.progress(name)
        assert last >= self.next_port, f"{name} did nothing"
        self.ports |= set(range(self.next_port, last + 1))
        self.next_port = last + 1

    def traffic(self, count):
        before = self.next_port
        self.end_traffic(self.begin_traffic(count))
        assert self.next_port - before == count, f"{self.next_port - before} of {count} connections"

    def all_recorded(self, what):
        """Waits until everything that was made so far is with the collector, then looks at each flow."""
        path = self.machine.root / "var/lib/collector/records.jsonl"
        wanted = 4 * len(self.ports)
        deadline = time.monotonic() + 60
        while len(collected.flows(path, self.ports)[0]) < wanted and time.monotonic() < deadline:
            time.sleep(1)
        # What comes too often comes a moment later.
        time.sleep(1)
        copies = collected.check(path, self.ports)
        self.done(f"{what}: {len(self.ports)} connections, {wanted} records, each once (copies of the same record: {copies})")

    def stat(self, path):
        return self.machine.out("stat", "-c", "%U:%G %a", path)

    # === the story

    def installed(self):
        machine = self.machine
        self.install(self.old)
        version = machine.out("flowtel", "--version")
        assert version == f"flowtel {self.version_of(self.old)}", version
        assert machine.out("getent", "group", "flowtel") and machine.out("getent", "passwd", "flowtel")
        shell = machine.out("getent", "passwd", "flowtel").split(":")[-1]
        assert shell.endswith("nologin"), shell
        for path, wanted in {
            "/usr/bin/flowtel": "root:root 755",
            "/etc/flowtel": "root:root 755",
            "/etc/flowtel/flowtel.toml": "root:flowtel 640",
            "/usr/lib/systemd/system/flowtel.service": "root:root 644",
            "/usr/share/man/man1/flowtel.1.gz": "root:root 644",
            "/usr/share/bash-completion/completions/flowtel": "root:root 644",
        }.items():
            assert self.stat(path) == wanted, f"{path}: {self.stat(path)}"
        assert machine.property("flowtel", "ActiveState") == "inactive"
        assert machine.run("systemctl", "is-enabled", "flowtel", check=False).stdout.strip() == "disabled"
        self.done(f"{version} installed: user, group, modes, manual pages; the service is neither enabled nor started")
        verify = machine.run("systemd-analyze", "verify", "/usr/lib/systemd/system/flowtel.service", check=False)
        assert verify.returncode == 0 and "flowtel" not in verify.stderr, verify.stderr
        shipped = self.exposure()
        drop_in = "/etc/systemd/system/flowtel.service.d/no-helper.conf"
        machine.put(CONFIG / "flowtel-no-helper.conf", drop_in, 0o644)
        machine.run("systemctl", "daemon-reload")
        without_helper = self.exposure()
        (machine.root / drop_in.lstrip("/")).unlink()
        machine.run("systemctl", "daemon-reload")
        assert shipped <= 2.3 and without_helper <= 2.0, (shipped, without_helper)
        self.done(f"systemd-analyze verify; exposure {shipped}, without the helper {without_helper}")

    def exposure(self):
        """How much of the host the service could reach at its start, by systemd's own measure."""
        said = self.machine.run("systemd-analyze", "security", "--no-pager", "flowtel", check=False).stdout
        return float(re.search(r"exposure level for flowtel.service: ([0-9.]+)", said).group(1))

    def without_helper(self):
        """The drop-in that gives the helper up: the service starts with its pins and its queue, and records."""
        machine = self.machine
        drop_in = "/etc/systemd/system/flowtel.service.d/no-helper.conf"
        machine.put(CONFIG / "flowtel-no-helper.conf", drop_in, 0o644)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "flowtel")
        pid = self.pid()
        assert not machine.out("cat", f"/proc/{pid}/task/{pid}/children"), "there is a helper"
        self.traffic(20)
        self.all_recorded("without the helper")
        (machine.root / drop_in.lstrip("/")).unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "flowtel")

    def started(self):
        machine = self.machine
        config = machine.root / "etc/flowtel/flowtel.toml"
        text = config.read_text()
        for setting in SETTINGS:
            text = edited(text, *setting)
        config.write_text(text)
        machine.write("/opt/collector.yaml", COLLECTOR)
        (machine.root / "var/lib/collector").mkdir(parents=True)
        self.start_collector()
        # As root, in the cgroup that is the root there, before the service holds the pins and the queue.
        check = machine.run("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "flowtel", "check", check=False)
        assert check.returncode == 0, check.stdout + check.stderr
        lines = check.stdout.strip().splitlines()
        self.done(f"flowtel check: exit code 0, {sum(' ok' in f' {line}' for line in lines)} of {len(lines)} lines ok")
        for line in lines:
            if " ok" not in f" {line}":
                print(f"      {line}")
        machine.run("systemctl", "enable", "--now", "flowtel")
        assert machine.property("flowtel", "ActiveState") == "active"
        assert machine.property("flowtel", "StatusText"), "no status for systemd"
        self.done(f"started, ready by sd_notify; status: {machine.property('flowtel', 'StatusText')}")
        for path, wanted in {"/var/lib/flowtel": "700", "/run/flowtel": "755"}.items():
            assert self.stat(path).endswith(wanted), f"{path}: {self.stat(path)}"
        self.traffic(50)
        self.all_recorded("recorded")

    def reloaded(self):
        machine = self.machine
        before = self.pid()
        machine.run("systemctl", "reload", "flowtel")
        assert machine.property("flowtel", "ActiveState") == "active" and self.pid() == before
        config = machine.root / "etc/flowtel/flowtel.toml"
        good = config.read_text()
        config.write_text(edited(good, "log", "level", "5"))
        machine.run("systemctl", "reload", "flowtel", check=False)
        config.write_text(good)
        assert machine.property("flowtel", "ActiveState") == "active" and self.pid() == before
        journal = machine.out("journalctl", "-u", "flowtel", "--no-pager", "-o", "cat")
        assert "log.level" in journal, journal[-2000:]
        self.done("reload: the same process; a wrong configuration is named in the journal, and changes nothing")

    def pid(self):
        return self.machine.property("flowtel", "MainPID")

    def restarted(self):
        machine = self.machine
        before = self.pid()
        machine.run("kill", "-9", before)
        machine.wait("the restart after kill -9", lambda: self.up_again(before))
        self.done("restarted by systemd after kill -9")
        machine.write("/etc/systemd/system/flowtel.service.d/test.conf", "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=2s\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "flowtel")
        before = self.pid()
        time.sleep(7)
        assert self.pid() == before, "the watchdog ended a flowtel that was alive"
        machine.run("kill", "-STOP", before)
        machine.wait("the watchdog", lambda: self.up_again(before))
        journal = machine.out("journalctl", "-u", "flowtel", "--no-pager", "-o", "cat")
        assert "Watchdog timeout" in journal, journal[-2000:]
        self.done("kept alive over two watchdog periods; restarted by the watchdog when its process was stopped")
        (machine.root / "etc/systemd/system/flowtel.service.d/test.conf").unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "flowtel")
        self.traffic(20)
        self.all_recorded("after these restarts")

    def up_again(self, before):
        return self.machine.property("flowtel", "ActiveState") == "active" and self.pid() not in ("0", before)

    def stopped(self):
        machine = self.machine
        self.stop_collector()
        self.traffic(100)
        machine.run("systemctl", "stop", "flowtel")
        assert machine.property("flowtel", "Result") == "success"
        queue = machine.out("flowtel", "queue", "inspect", "--json", "/var/lib/flowtel/queue")
        assert '"records":0' not in queue.replace(" ", ""), queue
        # Nobody reads; the programs are pinned.
        self.traffic(100)
        machine.run("systemctl", "start", "flowtel")
        self.start_collector()
        self.all_recorded("receiver away, stop, flows while stopped, start")

    def replaced(self, deb, word, *options):
        """Another version is installed while connections come and go, the receiver is away and the queue holds records."""
        machine = self.machine
        self.stop_collector()
        self.traffic(100)
        config = machine.root / "etc/flowtel/flowtel.toml"
        before, pid, text = self.stat("/etc/flowtel/flowtel.toml"), self.pid(), config.read_text()
        name = self.begin_traffic(5000, 0.01)
        machine.wait("traffic", lambda: self.progress(name) >= self.next_port + 20)
        first = self.progress(name)
        self.install(deb, *options)
        machine.wait(f"the {word} flowtel", lambda: self.up_again(pid) and self.status_version() == self.version_of(deb))
        during = self.progress(name) - first
        assert self.running(name), "the generator was done before the installation was"
        machine.write(f"/root/{name}.stop", "")
        self.end_traffic(name)
        assert config.read_text() == text and self.stat("/etc/flowtel/flowtel.toml") == before
        self.start_collector()
        self.all_recorded(
            f"{word} to {self.version_of(deb)}, {during} connections meanwhile, receiver away, configuration kept"
        )

    def formats(self):
        """A version with other formats of pins and queue, and back: neither reads what the other left, and nothing is lost."""
        machine = self.machine
        self.exchange(self.newer)
        assert "pinned anew" in self.said(), self.said()
        self.traffic(50)
        self.all_recorded(f"upgraded to {self.version_of(self.newer)}, which has other formats")
        self.stop_collector()
        self.traffic(50)
        waiting = set(self.ports)
        self.exchange(self.old, "--allow-downgrades")
        journal = self.said()
        pins = re.search(r"has layout (\d+), and this flowtel knows layout (\d+)", journal)
        assert pins and int(pins[1]) == int(pins[2]) + 1, journal
        queue = re.search(r"has version (\d+) of the format, and this flowtel knows (\d+)", journal)
        assert queue and int(queue[1]) == int(queue[2]) + 1, journal
        self.traffic(50)
        self.start_collector()
        path = machine.root / "var/lib/collector/records.jsonl"
        recent = self.ports - waiting
        machine.wait("what was recorded since", lambda: len(collected.flows(path, recent)[0]) == 4 * len(recent))
        collected.check(path, recent)
        self.done(f"downgraded: refuses layout {pins[1]} of pins and version {queue[1]} of the queue by name, and records on")
        self.exchange(self.newer)
        self.all_recorded("upgraded again: what waited in the newer queue is delivered")
        self.exchange(self.old, "--allow-downgrades")

    def exchange(self, deb, *options):
        """Another version is installed while no connection is made."""
        pid = self.pid()
        self.install(deb, *options)
        self.machine.wait("another flowtel", lambda: self.up_again(pid) and self.status_version() == self.version_of(deb))

    def said(self):
        """The journal of the flowtel that runs."""
        return self.machine.out("journalctl", f"_PID={self.pid()}", "--no-pager", "-o", "cat")

    def status_version(self):
        status = self.machine.status()
        return status["version"] if status else None

    def removed(self):
        machine = self.machine
        machine.run("apt-get", "remove", "-y", "flowtel")
        assert machine.property("flowtel", "ActiveState") == "inactive"
        for gone in ("/usr/bin/flowtel", "/usr/lib/systemd/system/flowtel.service", "/sys/fs/bpf/flowtel"):
            assert machine.run("test", "-e", gone, check=False).returncode == 1, f"{gone} is still there"
        for kept in ("/etc/flowtel/flowtel.toml", "/var/lib/flowtel/queue"):
            machine.run("test", "-e", kept)
        self.done("removed: stopped, nothing pinned; configuration and queue are kept")
        machine.run("apt-get", "purge", "-y", "flowtel")
        for gone in ("/etc/flowtel", "/var/lib/flowtel", "/etc/systemd/system/multi-user.target.wants/flowtel.service"):
            assert machine.run("test", "-e", gone, check=False).returncode == 1, f"{gone} is still there"
        self.done("purged: configuration and queue are gone")

    def tell(self):
        self.installed()
        self.started()
        self.reloaded()
        self.restarted()
        self.without_helper()
        self.stopped()
        self.replaced(self.new, "upgraded")
        self.replaced(self.old, "downgraded", "--allow-downgrades")
        self.formats()
        self.removed()


def main():
    *debs, otelcol, cache, suites = *sys.argv[1:6], sys.argv[6:]
    if os.geteuid() != 0:
        sys.exit("deb.py needs root")
    for suite in suites:
        with Machine(suite, pathlib.Path(cache)) as machine:
            print(f"{suite}: {machine.out('systemctl', '--version').splitlines()[0]}", flush=True)
            machine.put(otelcol, "/opt/otelcol")
            machine.put(pathlib.Path(__file__).with_name("traffic.py"), "/opt/traffic.py")
            scenario = Scenario(machine, *debs)
            try:
                scenario.tell()
            except Exception:
                journal = machine.run("journalctl", "--no-pager", "-n", "60", "-o", "short-monotonic", check=False).stdout
                print(journal, flush=True)
                raise
            print(f"{suite}: {scenario.steps} steps, all ok", flush=True)


main()
