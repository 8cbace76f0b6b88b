"""What the tests run in the cluster beside flowtel: pods that talk, a Service, CoreDNS."""

RESOURCES = {
    "guaranteed": "{requests: {cpu: 300m, memory: 32Mi}, limits: {cpu: 300m, memory: 32Mi}}",
    "burstable": "{requests: {memory: 16Mi}}",
    "besteffort": "{}",
}

TALKER = """apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: NAMESPACE, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: talker
    image: img.local/talker:1
    imagePullPolicy: Never
    args: [serve, "8080", "8081", "8082", "8083"]
    resources: RESOURCES
"""

SERVICE = """apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NAMESPACE}
spec: {selector: {app: NAME}, ports: [{port: 80, targetPort: 8080}]}
"""

DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: talker
        image: img.local/talker:1
        imagePullPolicy: Never
        args: [serve, "8080"]
"""

COREDNS = """apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      health
      ready
      kubernetes cluster.local in-addr.arpa
      cache 30
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      containers:
      - name: coredns
        image: img.local/coredns:1
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
        volumeMounts: [{name: c, mountPath: /etc/coredns}]
      volumes: [{name: c, configMap: {name: coredns}}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
"""

# The receiver of all records: what comes to port 14318 goes to all.jsonl, what comes to 14319 to sidecar.jsonl.
SINK = """
receivers:
  otlp/all: {protocols: {http: {endpoint: 10.99.0.1:14318}}}
  otlp/sidecar: {protocols: {http: {endpoint: 10.99.0.1:14319}}}
exporters:
  file/all: {path: STATE/all.jsonl, flush_interval: 100ms}
  file/sidecar: {path: STATE/sidecar.jsonl, flush_interval: 100ms}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    logs/all: {receivers: [otlp/all], exporters: [file/all]}
    logs/sidecar: {receivers: [otlp/sidecar], exporters: [file/sidecar]}
"""


def fill(text, name, namespace, resources="{}"):
    return text.replace("NAMESPACE", namespace).replace("NAME", name).replace("RESOURCES", resources)
