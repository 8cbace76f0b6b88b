#!/usr/bin/env python3
"""Real servers, and whom flowtel names: each runs in a network namespace of its own and answers every connection with the id of the
process that has it. That is compared with the record of the connection's begin.

    tests/servers/table.py [SERVER ...]    FLOWTEL=path, CONNECTIONS=10000, in all, for each server

A begin is wrong if it names a process that neither has the connection nor is the listener that docs/owners.md says it may be. Needs
root; what is missing of the servers is installed from Debian's packages, or that row is skipped."""
import collections, concurrent.futures, json, os, pathlib, shutil, signal, socket, subprocess, sys, tempfile, textwrap, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
FLOWTEL = os.environ.get("FLOWTEL") or next((p for p in (TARGET / "release/flowtel", TARGET / "debug/flowtel") if p.exists()), None)
CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))
CLIENTS = 4
CLIENT, SERVER, PORT = "192.0.2.1", "192.0.2.2", 7400
SPACES = "flowtel-servers-c", "flowtel-servers-s"

NGINX = """
daemon off; worker_processes 4; user root; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{ access_log off; server {{ listen {ip}:{port}{reuseport} backlog=4096; location / {{ return 200 $pid; }} }} }}
"""
HAPROXY = """
global
  maxconn 4000
defaults
  mode http
  timeout client 10s
  timeout connect 10s
  timeout server 10s
frontend f
  bind {ip}:{port}
  http-request return status 200 content-type text/plain lf-string "%pid"
"""
NODE = "require('http').createServer((q, r) => r.end(String(process.pid))).listen({port}, '{ip}')"
CLUSTER = """
const c = require('cluster');
if (c.isPrimary) {{ for (let i = 0; i < 4; i++) c.fork(); }}
else require('http').createServer((q, r) => r.end(String(process.pid))).listen({port}, '{ip}');
"""
GO = """
package main
import ("fmt"; "net/http"; "os")
func main() {{
    http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {{ fmt.Fprint(w, os.Getpid()) }})
    panic(http.ListenAndServe("{ip}:{port}", nil))
}}
"""
# The parent accepts, a child answers: the parent took the connection.
FORK = """
import os, signal, socket
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
s = socket.create_server(("{ip}", {port}), backlog=4096)
while True:
    c, _ = s.accept()
    if os.fork() == 0:
        c.recv(1000); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d" % os.getppid()); c.close(); os._exit(0)
    c.close()
"""
PREFORK = """
import os, socket
s = socket.create_server(("{ip}", {port}), backlog=4096)
for _ in range(3): os.fork() or None
while True:
    c, _ = s.accept()
    c.recv(1000); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d" % os.getpid()); c.close()
"""


def write(path, text):
    path.write_text(textwrap.dedent(text).format(ip=SERVER, port=PORT, dir=path.parent, reuseport="")); return path


def nginx(reuseport):
    def start(d):
        path = d / "nginx.conf"
        path.write_text(NGINX.format(ip=SERVER, port=PORT, dir=d, reuseport=reuseport))
        return ["nginx", "-c", path, "-p", d]
    return start


def go(d):
    write(d / "main.go", GO)
    (d / "go.mod").write_text("module server\n\ngo 1.24\n")
    subprocess.run(["go", "build", "-o", "server", "."], cwd=d, check=True, env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"})
    return [d / "server"]


def redis(d):
    return ["redis-server", "--bind", SERVER, "--port", str(PORT), "--save", "", "--appendonly", "no", "--protected-mode", "no", "--dir", d]


# name: (program, Debian package, how to start, whether records name the process that listens and docs/owners.md says why)
SERVERS = {
    "nginx": ("nginx", "nginx-light", nginx(""), False),
    "nginx reuseport": ("nginx", "nginx-light", nginx(" reuseport"), False),
    "haproxy": ("haproxy", "haproxy", lambda d: ["haproxy", "-db", "-f", write(d / "haproxy.cfg", HAPROXY)], False),
    "redis": ("redis-server", "redis-server", redis, False),
    "node": ("node", "nodejs", lambda d: ["node", write(d / "server.js", NODE)], False),
    "node cluster": ("node", "nodejs", lambda d: ["node", write(d / "cluster.js", CLUSTER)], True),
    "go": ("go", "golang-go", go, False),
    "python, a fork each": ("python3", "python3", lambda d: ["python3", write(d / "fork.py", FORK)], False),
    "python, forked before": ("python3", "python3", lambda d: ["python3", write(d / "prefork.py", PREFORK)], False),
}

# One client: connections one after the other; says port, time and process of each.
ASK = """
import socket, sys, time
ip, port, n, redis = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "redis"
question = b"INFO server\\r\\nQUIT\\r\\n" if redis else b"GET / HTTP/1.0\\r\\n\\r\\n"
for _ in range(n):
    with socket.create_connection((ip, port), timeout=20) as c:
        own = c.getsockname()[1]; c.sendall(question); answer = b""
        while more := c.recv(65536): answer += more
    pid = answer.split(b"process_id:")[1].split()[0] if redis else answer.split(b"\\r\\n\\r\\n")[1]
    print(own, time.time_ns(), pid.decode())
"""


def ip(*words): subprocess.run(["ip", *words], check=True)


def clean():
    for space in SPACES: subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)


def namespaces():
    clean()
    for space in SPACES: ip("netns", "add", space)
    ip("link", "add", "wire", "netns", SPACES[0], "type", "veth", "peer", "name", "wire", "netns", SPACES[1])
    for space, address in zip(SPACES, (CLIENT, SERVER)):
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "addr", "add", f"{address}/24", "dev", "wire")
        ip("-n", space, "link", "set", "wire", "up")


def within(space, command, **options):
    return subprocess.Popen(["nsenter", f"--net=/run/netns/{space}", "--", *map(str, command)], **options)


def attributes(record):
    values = {}
    for a in record.get("attributes", []): values[a["key"]] = next(iter(a["value"].values()))
    return values


def begins(path):
    """Time, process, source, by the client's port."""
    found = collections.defaultdict(list)
    for line in open(path):
        for r in json.loads(line).get("resourceLogs", []) if line.strip() else []:
            for record in (x for s in r["scopeLogs"] for x in s["logRecords"]):
                a = attributes(record)
                if record.get("eventName") == "flowtel.tcp.flow.begin" and a.get("flowtel.flow.direction") == "incoming" and a.get("destination.address") == SERVER:
                    found[int(a["source.port"])].append((int(record["timeUnixNano"]), int(a["process.pid"]) if "process.pid" in a else None, a.get("flowtel.process.source")))
    return {port: sorted(b, key=lambda b: b[0]) for port, b in found.items()}


def installed(program, package):
    if shutil.which(program): return True
    if not shutil.which("apt-get"): return False
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", package], stdout=subprocess.DEVNULL,
                   env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return shutil.which(program) is not None


def ready(process):
    for _ in range(300):
        if process.poll() is not None: raise SystemExit(f"a server ended with {process.returncode}")
        if within(SPACES[0], ["python3", "-c", f"import socket; socket.create_connection(('{SERVER}', {PORT}), 1)"], stderr=subprocess.DEVNULL).wait() == 0: return
        time.sleep(0.1)
    raise SystemExit("a server does not listen")


def row(name, start, listener_may):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="flowtel-servers-"))
    told = folder / "records.jsonl"
    flowtel = subprocess.Popen([FLOWTEL, "--set", "telemetry.status.socket="], stdout=open(told, "w"), stderr=open(folder / "flowtel.log", "w"))
    server = None
    try:
        time.sleep(1.5)
        if flowtel.poll() is not None: raise SystemExit((folder / "flowtel.log").read_text())
        server = within(SPACES[1], start(folder), cwd=folder, stdout=subprocess.DEVNULL, stderr=open(folder / "server.log", "w"), start_new_session=True)
        ready(server)
        time.sleep(0.3)
        since = time.time_ns()
        each = [CONNECTIONS // CLIENTS + (i < CONNECTIONS % CLIENTS) for i in range(CLIENTS)]
        asking = [within(SPACES[0], ["python3", "-c", ASK, SERVER, PORT, n, name], stdout=subprocess.PIPE, text=True) for n in each]
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool: answers = "".join(pool.map(lambda c: c.communicate()[0], asking))
        time.sleep(1)
        flowtel.send_signal(signal.SIGTERM); flowtel.wait(60)
    finally:
        if flowtel.poll() is None: flowtel.kill()
        if server: os.killpg(server.pid, signal.SIGKILL); server.wait()
    has = collections.defaultdict(list)
    for port, at, pid in (map(int, line.split()) for line in answers.splitlines()): has[port].append((at, pid))
    asked = sum(map(len, has.values()))
    seen, count = begins(told), collections.Counter()
    # A port may have several connections, one after the other.
    pairs = []
    for port, had in has.items():
        told_of = [begin for begin in seen.get(port, []) if begin[0] >= since]
        if len(told_of) == len(had): pairs += zip(sorted(had), told_of)
        else: count["not once"] += len(had)
    for (_, pid), (_, who, source) in pairs:
        if who is None: count["nobody"] += 1
        elif who == pid: count["right"] += 1; count[source] += 1
        elif listener_may and source == "listener": count["documented"] += 1
        else: count["wrong"] += 1
    owned = count["right"] + count["documented"]
    good = asked >= CONNECTIONS * 0.99 and not count["wrong"] and not count["not once"] and owned >= 0.99 * asked
    print(f"{name:23} {asked:6} {count['right']:6} {count['accept']:6} {count['listener']:8} {count['documented']:10} {count['nobody']:6} "
          f"{count['wrong']:5} {count['not once']:8} {100 * owned / max(1, asked):6.2f} %  {'ok' if good else 'FAILED: ' + str(folder)}", flush=True)
    if good: shutil.rmtree(folder)
    return good


def main():
    if not FLOWTEL: raise SystemExit("no flowtel was built: cargo build --release -p flowtel, or FLOWTEL=path")
    unknown = [name for name in sys.argv[1:] if name not in SERVERS]
    if unknown: raise SystemExit(f"no such server: {unknown}; there are {list(SERVERS)}")
    passed, failed, skipped = 0, 0, 0
    print(f"{'server':23} {'asked':>6} {'right':>6} {'accept':>6} {'listener':>8} {'documented':>10} {'nobody':>6} {'wrong':>5} {'not once':>8} {'owned':>8}")
    try:
        for name in sys.argv[1:] or SERVERS:
            program, package, start, listener_may = SERVERS[name]
            if not installed(program, package):
                print(f"{name:23} skipped: no {program}"); skipped += 1; continue
            namespaces()
            if row(name, start, listener_may): passed += 1
            else: failed += 1
    finally: clean()
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return failed > 0


if __name__ == "__main__": sys.exit(main())
