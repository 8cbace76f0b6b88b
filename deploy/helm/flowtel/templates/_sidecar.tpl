{{/*
What a pod needs for a flowtel of its own: initContainers and volumes of a pod's spec. A chart that has this one as a
dependency may include it in its own templates.
*/}}
{{- define "flowtel.sidecar" -}}
initContainers:
  # An init container that is restarted always: it starts before the pod's containers and ends after them.
  - name: flowtel
    image: {{ include "flowtel.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    restartPolicy: Always
    args: [run]
    securityContext: {{- include "flowtel.securityContext" . | nindent 6 }}
    env:
      {{- include "flowtel.env" . | nindent 6 }}
      # Only sockets of this pod: the cgroup around the container's.
      - name: FLOWTEL_CAPTURE__CGROUP
        value: self
    {{- include "flowtel.probes" . | nindent 4 }}
    resources: {{- toYaml .Values.sidecar.resources | nindent 6 }}
    volumeMounts:
      - {name: flowtel-cgroup, mountPath: /sys/fs/cgroup, readOnly: true}
      - {name: flowtel-run, mountPath: /run/flowtel}
      - {name: flowtel-machine-id, mountPath: /etc/machine-id, readOnly: true}
      - {name: flowtel-config, mountPath: /etc/flowtel/conf.d, readOnly: true}
      {{- if include "flowtel.secretName" . }}
      - {name: flowtel-receiver, mountPath: /etc/flowtel/receiver, readOnly: true}
      {{- end }}
volumes:
  - name: flowtel-cgroup
    hostPath: {path: {{ .Values.sidecar.cgroupHostPath }}, type: Directory}
  - name: flowtel-run
    emptyDir: {medium: Memory, sizeLimit: 1Mi}
  - name: flowtel-machine-id
    hostPath: {path: /etc/machine-id, type: File}
  - name: flowtel-config
    configMap:
      name: {{ include "flowtel.fullname" . }}
      items: [{key: values.toml, path: values.toml}]
  {{- with include "flowtel.secretName" . }}
  - name: flowtel-receiver
    secret:
      secretName: {{ . }}
      items: [{key: headers, path: headers}]
  {{- end }}
{{- end -}}
