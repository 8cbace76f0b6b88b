{{- define "flowtel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "flowtel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "flowtel.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "flowtel.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "flowtel.selector" -}}
app.kubernetes.io/name: {{ include "flowtel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flowtel.labels" -}}
{{ include "flowtel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "flowtel.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "flowtel.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "flowtel.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Where records go; empty: to the pod's log. */}}
{{- define "flowtel.endpoint" -}}
{{- if .Values.receiver.endpoint -}}
{{- .Values.receiver.endpoint -}}
{{- else if .Values.gateway.enabled -}}
http://{{ include "flowtel.fullname" . }}-gateway.{{ .Release.Namespace }}.svc:4317
{{- end -}}
{{- end -}}

{{- define "flowtel.secretName" -}}
{{- if .Values.receiver.existingSecret -}}
{{- .Values.receiver.existingSecret -}}
{{- else if include "flowtel.endpoint" . -}}
{{- include "flowtel.fullname" . }}-receiver
{{- end -}}
{{- end -}}

{{/* All capabilities of the container, as a JSON list: the one place that knows them. */}}
{{- define "flowtel.capabilities" -}}
{{- $r := .Values.rights -}}
{{- $all := $r.required -}}
{{- if $r.changeUser }}{{ $all = concat $all (list "SETUID" "SETGID" "SETPCAP" "CHOWN") }}{{ end -}}
{{- if $r.executables }}{{ $all = append $all "SYS_PTRACE" }}{{ end -}}
{{- if $r.containers }}{{ $all = append $all "DAC_READ_SEARCH" }}{{ end -}}
{{- if $r.openConnections }}{{ $all = append $all "SYS_ADMIN" }}{{ end -}}
{{- concat $all $r.more | uniq | toJson -}}
{{- end -}}

{{/* Not privileged, and uid 0: a container runtime gives added capabilities to no other user. */}}
{{- define "flowtel.securityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: [ALL]
  add: {{ include "flowtel.capabilities" . }}
seccompProfile:
  {{- toYaml .Values.seccompProfile | nindent 2 }}
{{- with .Values.appArmorProfile }}
appArmorProfile:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Variables of agent and sidecar. What the kubelet knows comes before what is made of it. */}}
{{- define "flowtel.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "k8s.node.name=$(NODE_NAME),host.name=$(NODE_NAME){{ with .Values.clusterName }},k8s.cluster.name={{ . }}{{ end }}"
# Nobody's: the image has no user of its own.
- name: FLOWTEL_SECURITY__USER
  value: "65534"
# Who runs `flowtel status` in the container is uid and gid 0 without any right: by the group it may ask.
- name: FLOWTEL_TELEMETRY__GROUP
  value: "0"
{{- with include "flowtel.secretName" . }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  valueFrom: {secretKeyRef: {name: {{ . }}, key: endpoint}}
- name: FLOWTEL_EXPORT__HEADERS_FILE
  value: /etc/flowtel/receiver/headers
{{- end }}
{{- with .Values.receiver.protocol }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ . }}
{{- end }}
{{- end -}}

{{/* `flowtel status` asks at a socket: a probe by HTTP would be a connection, and so four records. */}}
{{- define "flowtel.probes" -}}
startupProbe:
  exec: {command: [/flowtel, status]}
  periodSeconds: 1
  failureThreshold: 60
  timeoutSeconds: 6
livenessProbe:
  exec: {command: [/flowtel, status]}
  periodSeconds: 30
  failureThreshold: 3
  timeoutSeconds: 6
{{- end -}}
