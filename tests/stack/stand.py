"""What the tests of stores share: free ports, servers that are started and ended, records as OTLP/JSON. Needs only Python's
library."""
import collections, json, os, pathlib, shutil, socket, subprocess, tempfile, time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "stack"


def otlp(records):
    def value(v):
        if isinstance(v, list): return {"arrayValue": {"values": [value(x) for x in v]}}
        if isinstance(v, bool): return {"boolValue": v}
        if isinstance(v, int): return {"intValue": str(v)}
        return {"doubleValue": v} if isinstance(v, float) else {"stringValue": v}
    def pairs(d): return [{"key": k, "value": value(v)} for k, v in d.items()]
    by_host = collections.defaultdict(list)
    for r in records:
        by_host[r["host"]].append({"timeUnixNano": str(r["time"]), "observedTimeUnixNano": str(r["time"] + 250_000), "severityNumber": 9,
                                   "eventName": r["event"], "body": {"stringValue": r["body"]}, "attributes": pairs(r["attributes"])})
    return {"resourceLogs": [{"resource": {"attributes": pairs({
        "service.name": "flowtel", "service.version": "0.1.0", "service.instance.id": f"instance-{h}", "host.name": h, "host.id": f"id-{h}",
        "os.type": "linux"})}, "scopeLogs": [{"scope": {"name": "flowtel"}, "logRecords": rs}]} for h, rs in by_host.items()]}


def send(port, records, step=100):
    """Posts records to a collector's HTTP receiver, some a request."""
    for i in range(0, len(records), step):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/logs", json.dumps(otlp(records[i:i + step])).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as r: assert r.status == 200, r.status


def free_ports(n):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    try: return [s.getsockname()[1] for s in held]
    finally: [s.close() for s in held]


def wait(what, url, child, seconds=90):
    end = time.time() + seconds
    while time.time() < end:
        if child.poll() is not None: raise SystemExit(f"{what} ended with {child.returncode}, see its log")
        try:
            with urllib.request.urlopen(url, timeout=2) as r:
                if r.status == 200: return
        except OSError: pass
        time.sleep(0.3)
    raise SystemExit(f"{what}: {url} did not answer within {seconds} s")


def start(name, arguments, folder):
    log = open(folder / f"{name}.log", "w")
    return subprocess.Popen([STACK / name, *map(str, arguments)], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def end(children):
    """Ends what was started, the last first."""
    for c in reversed(children): c.terminate()
    for c in reversed(children):
        try: c.wait(30)
        except subprocess.TimeoutExpired: c.kill()


def put(file, replacements, into):
    """Copies a shipped configuration with other addresses and folders; each must be there."""
    text = file.read_text()
    for a, b in replacements:
        assert a in text, f"{file}: {a}"
        text = text.replace(a, b)
    into.write_text(text)


class Checks:
    """Counts what passed and what failed; prints a line each."""
    def __init__(self): self.passed, self.failed = 0, 0

    def check(self, what, test):
        try:
            test()
            self.passed += 1
            print(f"ok      {what}", flush=True)
        except Exception as e:  # a wrong answer's shape is a failure like any other
            self.failed += 1
            print(f"FAILED  {what}\n        {type(e).__name__}: {e}", flush=True)

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


def equal(got, want):
    assert got == want, f"found {got}\n        wanted {want}"


def program(main, *needs):
    """Runs a test in a folder of its own, ends its servers, and keeps the folder where something failed. `main` gets the
    folder, a list for what it starts (anything with a `child`), and the checks."""
    for name in needs:
        if not (STACK / name).exists():
            print(f"skipped: {STACK / name} is not there (tests/stack/build.sh {name})\n0 passed, 0 failed, 1 skipped")
            return 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="flowtel-stack-"))
    servers, checks, whole = [], Checks(), False
    try:
        main(folder, servers, checks)
        whole = True
    finally:
        end([s.child for s in servers])
        if whole and checks.failed == 0: shutil.rmtree(folder)
        else: print(f"logs: {folder}")
    return checks.close()
