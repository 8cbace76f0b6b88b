"""The servers that tests of stores talk to, each on free loopback ports and in a folder of its own, with the shipped
configurations (only addresses and folders changed). Needs only Python's library, and Java for two of them."""
import os, pathlib, pwd, shutil, subprocess

from stand import ROOT, STACK, free_ports, put, start, wait

SHIPPED = ROOT / "config"


class Server:
    """A started program: its process, and where it answers."""
    def __init__(self, child, base, ready): self.child, self.base, self.ready = child, base, ready

    def wait(self, seconds=180):
        wait(self.base, f"{self.base}/{self.ready}", self.child, seconds)
        return self


def loki(folder, stock=False, more=()):
    """Loki with the shipped settings; `stock`: with nothing but what a Loki has to be told, so its own defaults hold."""
    http, rpc = free_ports(2)
    text = (SHIPPED / "loki/loki.yaml").read_text()
    if stock:
        head, rest = text.split("limits_config:\n", 1)
        text = head + rest[rest.index("analytics:"):]
    file = folder / "loki.yaml"
    file.write_text(text)
    put(file, [("0.0.0.0", "127.0.0.1"), (": 3100", f": {http}"), (": 9096", f": {rpc}"), (" /loki", f" {folder}/loki"), *more], file)
    return Server(start("loki", [f"-config.file={file}"], folder), f"http://127.0.0.1:{http}", "ready")


class Collector(Server):
    """The collector. `http` and `grpc` are the ports of its receiver, `metrics` that of its own figures."""
    def __init__(self, folder, files, addresses, name="otelcol"):
        self.grpc, self.http, health, self.metrics = free_ports(4)
        args = []
        for i, file in enumerate(files):
            text = (SHIPPED / "collector" / file).read_text()
            for a, b in [("0.0.0.0:4317", f"127.0.0.1:{self.grpc}"), ("0.0.0.0:4318", f"127.0.0.1:{self.http}"), ("0.0.0.0:13133", f"127.0.0.1:{health}"),
                         ("0.0.0.0", "127.0.0.1"), ("port: 8888", f"port: {self.metrics}"), ("/var/lib/otelcol", f"{folder}/{name}"), *addresses]:
                text = text.replace(a, b)
            (folder / f"{name}-{i}.yaml").write_text(text)
            args.append(f"--config={folder}/{name}-{i}.yaml")
        super().__init__(start("otelcol", args, folder), f"http://127.0.0.1:{health}", "")


def java(folder, name, options):
    """Elasticsearch or OpenSearch; both refuse to run as root."""
    http, transport = free_ports(2)
    home, data = STACK / name, folder / name
    (data / "config").mkdir(parents=True)
    for f in (home / "config").iterdir():
        if f.is_file(): shutil.copy(f, data / "config")
    # The launcher writes logs beside the program otherwise, which is not this user's.
    jvm = (data / "config/jvm.options").read_text()
    (data / "config/jvm.options").write_text(jvm.replace("file=logs/", f"file={data}/logs/")
        .replace("-XX:HeapDumpPath=data", f"-XX:HeapDumpPath={data}").replace("-XX:ErrorFile=logs", f"-XX:ErrorFile={data}/logs"))
    for d in ("logs", "tmp"): (data / d).mkdir()
    (data / f"config/{name}.yml").write_text(
        f"discovery.type: single-node\nnetwork.host: 127.0.0.1\nhttp.port: {http}\ntransport.port: {transport}\n"
        f"cluster.routing.allocation.disk.threshold_enabled: false\npath.data: {data}/data\npath.logs: {data}/logs\n{options}")
    runtime = str(pathlib.Path(shutil.which("java")).resolve().parents[1])
    heap = "-Xms1g -Xmx1g"
    env = {"PATH": os.environ["PATH"], "JAVA_HOME": runtime, "ES_JAVA_HOME": runtime, "ES_PATH_CONF": str(data / "config"), "ES_JAVA_OPTS": heap,
           "ES_TMPDIR": str(data / "tmp"), "OPENSEARCH_PATH_CONF": str(data / "config"), "OPENSEARCH_JAVA_OPTS": heap,
           "OPENSEARCH_TMPDIR": str(data / "tmp"), "HOME": str(data)}
    run = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        folder.chmod(0o755)
        for d, _, files in os.walk(data):
            for f in [d, *(os.path.join(d, f) for f in files)]: os.chown(f, nobody.pw_uid, nobody.pw_gid)
        run = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    log = open(folder / f"{name}.log", "w")
    child = subprocess.Popen([home / "bin" / name], cwd=data, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **run)
    return Server(child, f"http://127.0.0.1:{http}", "_cluster/health?wait_for_status=yellow&timeout=1s")


def elasticsearch(folder): return java(folder, "elasticsearch", "xpack.security.enabled: false\n")


def opensearch(folder): return java(folder, "opensearch", "")
