{{/*
The collector's configuration. Pods and workloads are named in two passes, each of which sees one pod a resource: first the
one whose process a record names (k8s.pod.uid), then the one at the other end, by address. Names end up on the records, as
source.k8s.* and destination.k8s.*; the resource stays the agent's. docs/kubernetes.md, "Names", explains each step.
*/}}
{{- define "flowtel.gateway.names" -}}
[k8s.namespace.name, k8s.pod.name, k8s.deployment.name, k8s.daemonset.name, k8s.statefulset.name, k8s.job.name, k8s.cronjob.name]
{{- end -}}

{{- define "flowtel.gateway.config" -}}
{{- $k := .Values.gateway.kubernetes -}}
{{- $names := include "flowtel.gateway.names" . | fromYamlArray -}}
extensions:
  health_check: {endpoint: 0.0.0.0:13133}
  file_storage: {directory: /var/lib/otelcol, create_directory: true}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: 0.0.0.0:4317}
      http: {endpoint: 0.0.0.0:4318}
processors:
  memory_limiter: {check_interval: 1s, limit_percentage: 80, spike_limit_percentage: 20}
  {{- if $k.enabled }}
  # A resource for each pod.
  groupbyattrs/own: {keys: [k8s.pod.uid]}
  k8sattributes/own:
    pod_association: [{sources: [{from: resource_attribute, name: k8s.pod.uid}]}]
    extract:
      deployment_name_from_replicaset: true
      metadata: {{ $names | toJson }}
  transform/own:
    error_mode: propagate
    log_statements:
      - context: log
        conditions: ['resource.attributes["k8s.pod.uid"] != nil']
        statements:
          - set(log.attributes["k8s.pod.uid"], resource.attributes["k8s.pod.uid"])
      - context: log
        conditions: ['log.attributes["flowtel.flow.direction"] != "incoming"']
        statements:
          {{- range $names }}
          - set(log.attributes["source.{{ . }}"], resource.attributes["{{ . }}"]) where resource.attributes["{{ . }}"] != nil
          {{- end }}
          {{- if $k.farEnd }}
          - set(log.attributes["k8s.pod.ip"], log.attributes["destination.address"])
          {{- end }}
      - context: log
        conditions: ['log.attributes["flowtel.flow.direction"] == "incoming"']
        statements:
          {{- range $names }}
          - set(log.attributes["destination.{{ . }}"], resource.attributes["{{ . }}"]) where resource.attributes["{{ . }}"] != nil
          {{- end }}
          {{- if $k.farEnd }}
          - set(log.attributes["k8s.pod.ip"], log.attributes["source.address"])
          {{- end }}
      - context: resource
        statements: &forget
          - delete_key(resource.attributes, "k8s.pod.uid")
          - delete_key(resource.attributes, "k8s.pod.ip")
          {{- range $names }}
          - delete_key(resource.attributes, "{{ . }}")
          {{- end }}
  {{- if $k.farEnd }}
  # A resource for each address.
  groupbyattrs/far: {keys: [k8s.pod.ip]}
  k8sattributes/far:
    # Pods in a node's network share its address: an address must not be given the name of one of them.
    filter: {fields: [{key: spec.hostNetwork, op: equals, value: "false"}]}
    pod_association: [{sources: [{from: resource_attribute, name: k8s.pod.ip}]}]
    extract:
      deployment_name_from_replicaset: true
      metadata: {{ $names | toJson }}
  transform/far:
    error_mode: propagate
    log_statements:
      - context: log
        conditions: ['log.attributes["flowtel.flow.direction"] != "incoming"']
        statements:
          {{- range $names }}
          - set(log.attributes["destination.{{ . }}"], resource.attributes["{{ . }}"]) where resource.attributes["{{ . }}"] != nil
          {{- end }}
      - context: log
        conditions: ['log.attributes["flowtel.flow.direction"] == "incoming"']
        statements:
          {{- range $names }}
          - set(log.attributes["source.{{ . }}"], resource.attributes["{{ . }}"]) where resource.attributes["{{ . }}"] != nil
          {{- end }}
      - context: resource
        statements: *forget
  {{- end }}
  # The agent's resource again, once.
  groupbyattrs/together: {}
  {{- end }}
exporters:
  {{- range $name, $exporter := .Values.gateway.exporters }}
  {{- if has $name $.Values.gateway.queued }}
  {{- $exporter = mustMergeOverwrite (dict "sending_queue" (dict "storage" "file_storage")) (deepCopy $exporter) }}
  {{- end }}
  {{ $name }}: {{ $exporter | toJson }}
  {{- end }}
service:
  extensions: [health_check, file_storage]
  pipelines:
    logs:
      receivers: [otlp]
      processors:
        - memory_limiter
        {{- if $k.enabled }}
        - groupbyattrs/own
        - k8sattributes/own
        - transform/own
        {{- if $k.farEnd }}
        - groupbyattrs/far
        - k8sattributes/far
        - transform/far
        {{- end }}
        - groupbyattrs/together
        {{- end }}
      exporters: {{ keys .Values.gateway.exporters | sortAlpha | toJson }}
{{- end -}}
