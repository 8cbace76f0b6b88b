"""A Kubernetes of one node, in namespaces of its own: etcd, API server, controllers, scheduler, kubelet on containerd, kube-proxy.

    with Cluster(folder) as cluster:
        cluster.kubectl("get", "nodes")

Whatever it starts has ended, and what it made is gone, when the `with` is left, also by an error or a signal. It makes
/kubepods in the host's tree of cgroups, so one runs at a time."""
import fcntl, json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time

import images, pki

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STACK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "stack"
BIN = (STACK / "kubernetes").resolve()
CGROUPS = pathlib.Path("/sys/fs/cgroup")
OWN_GROUPS = ("kubepods", "k8s.io")
NAMESPACES = ("--mount", "--net", "--uts", "--ipc")

CONTAINERD = """version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "img.local/pause:1"
  # Without CAP_SYS_RESOURCE runc can't give a pod a better OOM score than its own.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"""
KUBELET = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: PKI/kubelet.crt
tlsPrivateKeyFile: PKI/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: ""
staticPodPath: STATE/static
nodeStatusUpdateFrequency: 5s
# A disk that is nearly full is the machine's affair, not a reason to evict what is tested.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 1Gi, imagefs.available: 1Gi}
"""
PROXY = """apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
hostnameOverride: node1
clientConnection: {kubeconfig: PKI/proxy.conf}
conntrack: {maxPerCore: 0, min: 0}
"""


class Failed(Exception):
    """A command inside the cluster did not do what it was asked to."""


class Cluster:
    def __init__(self):
        self.began = time.monotonic()
        self.running = {}

    def say(self, text): print(f"{time.monotonic() - self.began:6.1f} s  {text}", file=sys.stderr, flush=True)

    # === start

    def __enter__(self):
        self.lock = open("/run/flowtel-test-kubernetes.lock", "w")
        try: fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError: raise SystemExit("another test cluster runs on this machine")
        for signal_number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal_number, lambda number, _: sys.exit(128 + number))
        taken = [p for group in OWN_GROUPS for p in processes_below(group)]
        if taken: raise SystemExit(f"something else has containers in the cgroups {OWN_GROUPS}: processes {taken[:5]}")
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="flowtel-kubernetes-"))
        self.pki = self.state / "pki"
        try: self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self):
        for folder in ("logs", "static", "etcd", "home", "images"): (self.state / folder).mkdir()
        pki.make(self.pki)
        for name, text in (("containerd.toml", CONTAINERD), ("kubelet.yaml", KUBELET), ("proxy.yaml", PROXY)):
            (self.state / name).write_text(text.replace("PKI", str(self.pki)).replace("STATE", str(self.state)))
        # The programs are seen inside at the same path as the state.
        (self.state / "bin").mkdir()
        self.node = self.spawn("node", ["unshare", *NAMESPACES, "--propagation", "private", HERE / "node.sh",
                                        (STACK / "node").resolve(), self.state], inside=False)
        self.until("the node's namespaces", lambda: (self.state / "up").exists(), 20)
        for name, program in ({program.name: program for program in BIN.iterdir()} | {"helm": (STACK / "helm").resolve()}).items():
            os.link(program, self.state / "bin" / name) if same_device(program, self.state) else shutil.copy2(program, self.state / "bin" / name)
        self.daemon("containerd", ["containerd", "--config", self.state / "containerd.toml"])
        self.daemon("etcd", [self.bin("etcd"), "--data-dir", self.state / "etcd", "--listen-client-urls", "http://127.0.0.1:2379",
                             "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
                             "--unsafe-no-fsync"])
        p = self.pki
        self.daemon("apiserver", [
            self.bin("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--advertise-address=10.99.0.1", "--secure-port=6443",
            f"--client-ca-file={p}/ca.crt", f"--tls-cert-file={p}/apiserver.crt", f"--tls-private-key-file={p}/apiserver.key",
            f"--service-account-key-file={p}/sa.pub", f"--service-account-signing-key-file={p}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={p}/admin.crt", f"--kubelet-client-key={p}/admin.key",
            f"--kubelet-certificate-authority={p}/ca.crt"])
        self.until("containerd", lambda: self.inside("ctr", "version", check=False).returncode == 0, 30)
        self.image("img.local/pause:1", "/pause", BIN / "pause")
        self.until("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, 120)
        self.daemon("controllers", [
            self.bin("kube-controller-manager"), f"--kubeconfig={p}/controllers.conf", f"--service-account-private-key-file={p}/sa.key",
            f"--root-ca-file={p}/ca.crt", "--use-service-account-credentials=true", "--leader-elect=false",
            f"--cluster-signing-cert-file={p}/ca.crt", f"--cluster-signing-key-file={p}/ca.key"])
        self.daemon("scheduler", [self.bin("kube-scheduler"), f"--kubeconfig={p}/scheduler.conf", "--leader-elect=false"])
        self.daemon("proxy", [self.bin("kube-proxy"), "--config", self.state / "proxy.yaml"])
        self.kubelet()
        self.until("a Ready node", lambda: self.kubectl("wait", "--for=condition=Ready", "node/node1", "--timeout=1s",
                                                        check=False).returncode == 0, 120)
        self.until("the default service account", lambda: self.kubectl("get", "sa", "default", check=False).returncode == 0, 60)

    def kubelet(self):
        self.daemon("kubelet", [self.bin("kubelet"), "--config", self.state / "kubelet.yaml", "--kubeconfig", self.pki / "kubelet.conf",
                                "--hostname-override", "node1", "--node-ip", "10.99.0.1"])

    # === what runs

    def bin(self, program): return self.state / "bin" / program

    def enter(self): return ["nsenter", "-t", str(self.node.pid), *NAMESPACES, "--root", "--wd", "--"]

    def spawn(self, name, words, inside=True, **more):
        log = open(self.state / "logs" / f"{name}.log", "a")
        words = (self.enter() if inside else []) + [str(word) for word in words]
        more = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL} | more
        return subprocess.Popen(words, start_new_session=True, env=self.environment(), **more)

    def daemon(self, name, words):
        self.running[name] = self.spawn(name, words)

    def end(self, name, by=signal.SIGTERM, patience=20):
        child = self.running.pop(name)
        child.send_signal(by)
        try: child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def environment(self):
        return {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": str(self.state / "home"), "KUBECONFIG": str(self.pki / "admin.conf")}

    def inside(self, *words, check=True, stdin=None, patience=120):
        done = subprocess.run(self.enter() + [str(word) for word in words], env=self.environment(), input=stdin, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=patience)
        if check and done.returncode: raise Failed(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        return done

    def kubectl(self, *words, **more): return self.inside(self.bin("kubectl"), *words, **more)

    def get(self, *words): return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def apply(self, text): return self.kubectl("apply", "-f", "-", stdin=text)

    def helm(self, *words, **more): return self.inside(self.bin("helm"), *words, **more)

    def image(self, name, place, program):
        archive = self.state / "images" / f"{pathlib.Path(place).name}.tar"
        images.write(archive, name, place, program)
        self.inside("ctr", "-n", "k8s.io", "images", "import", archive)
        archive.unlink()

    def until(self, what, true, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            for name, child in self.running.items():
                if child.poll() is not None: raise Failed(f"{name} ended with {child.returncode}: {self.tail(name)}")
            if time.monotonic() > end: raise Failed(f"{what}: not within {seconds} s")
            time.sleep(0.1)
        self.say(what)

    def tail(self, name): return (self.state / "logs" / f"{name}.log").read_text()[-1500:]

    def used(self, pod):
        """What a pod has used: most bytes of memory, seconds of CPU; by its cgroup, of version 1 or 2."""
        for quality in ("", "burstable/", "besteffort/"):
            place = f"kubepods/{quality}pod{pod['metadata']['uid']}"
            v1 = CGROUPS / "memory" / place / "memory.max_usage_in_bytes"
            if v1.exists():
                return {"memory": int(v1.read_text()), "cpu": int((CGROUPS / "cpuacct" / place / "cpuacct.usage").read_text()) / 1e9}
            v2 = CGROUPS / place
            if v2.exists():
                return {"memory": int((v2 / "memory.peak").read_text()), "cpu": int((v2 / "cpu.stat").read_text().split()[1]) / 1e6}
        raise Failed(f"no cgroup of pod {pod['metadata']['name']}")

    # === stop

    def __exit__(self, kind, error, _):
        if kind and os.environ.get("FLOWTEL_KEEP"):
            self.say(f"failed: {error}\nkept for a look, until a key is pressed: nsenter -t {self.node.pid} -m -n -u -i -r -w")
            input()
        self.stop()

    def stop(self):
        """Ends all processes of the cluster, and removes its cgroups and its files. What it can't remove it names."""
        # First who would start others again.
        for name in ("kubelet", "containerd"):
            if name in self.running: self.end(name, signal.SIGKILL)
        for name in reversed(list(self.running)): self.end(name, patience=5)
        own = {os.stat(f"/proc/{self.node.pid}/ns/mnt").st_ino} if self.node.poll() is None else set()
        for _ in range(50):
            left = [pid for group in OWN_GROUPS for pid in processes_below(group)] + [pid for pid in in_namespaces(own) if pid != self.node.pid]
            for pid in left:
                try: os.kill(pid, signal.SIGKILL)
                except ProcessLookupError: pass
            if not left: break
            time.sleep(0.1)
        self.node.kill()
        self.node.wait()
        for tree in [CGROUPS, *CGROUPS.iterdir()]:
            for group in OWN_GROUPS: remove_group(tree / group)
        # Mounts go with the last process of their namespace, a moment later.
        for _ in range(100):
            try:
                shutil.rmtree(self.state)
                break
            except OSError as error: reason = error
            time.sleep(0.1)
        else: self.say(f"{self.state} could not be removed: {reason}")
        self.lock.close()
        self.say("gone")


def same_device(a, b): return os.stat(a).st_dev == os.stat(b).st_dev


def processes_below(group):
    """Processes in a cgroup of that name at the root of any tree, and below."""
    found = set()
    for tree in [CGROUPS, *CGROUPS.iterdir()]:
        for folder, _, files in os.walk(tree / group):
            try: found |= {int(line) for line in pathlib.Path(folder, "cgroup.procs").read_text().split()}
            except OSError: pass
    return found - {0}


def in_namespaces(mounts):
    """Processes in one of these mount namespaces."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if os.stat(f"/proc/{pid}/ns/mnt").st_ino in mounts: found.append(pid)
        except OSError: pass
    return found


def remove_group(path):
    for folder, _, _ in os.walk(path, topdown=False):
        for _ in range(50):
            try: os.rmdir(folder)
            except FileNotFoundError: pass
            except OSError:
                time.sleep(0.1)
                continue
            break
