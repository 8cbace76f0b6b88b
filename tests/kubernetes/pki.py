"""The cluster's certificates and the kubeconfig files that hold them, made by openssl, good for two days."""
import subprocess

SERVER = "https://10.99.0.1:6443"
NAMES = {  # file: subject, names of the server
    "apiserver": ("/CN=kube-apiserver", "IP:10.99.0.1,IP:10.96.0.1,IP:127.0.0.1,DNS:node1,DNS:kubernetes.default.svc"),
    "admin": ("/O=system:masters/CN=admin", ""),
    "controllers": ("/CN=system:kube-controller-manager", ""),
    "scheduler": ("/CN=system:kube-scheduler", ""),
    "proxy": ("/CN=system:kube-proxy", ""),
    "kubelet": ("/O=system:nodes/CN=system:node:node1", "IP:10.99.0.1,DNS:node1"),
}


def openssl(folder, *words):
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode: raise SystemExit(f"openssl {' '.join(words)}: {done.stderr}")


def make(folder):
    """Fills `folder` with NAME.key, NAME.crt and NAME.conf of each, ca.crt, and the key of the service accounts' tokens."""
    folder.mkdir()
    def key(name): openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    key("ca")
    openssl(folder, "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=flowtel-test", "-days", "2", "-out", "ca.crt")
    openssl(folder, "genrsa", "-out", "sa.key", "2048")
    openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    for name, (subject, names) in NAMES.items():
        key(name)
        openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
        extensions = "extendedKeyUsage=serverAuth,clientAuth\n" + (f"subjectAltName={names}\n" if names else "")
        (folder / f"{name}.ext").write_text(extensions)
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        (folder / f"{name}.conf").write_text(f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{SERVER}", certificate-authority: {folder}/ca.crt}}}}]
users: [{{name: u, user: {{client-certificate: {folder}/{name}.crt, client-key: {folder}/{name}.key}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
""")
