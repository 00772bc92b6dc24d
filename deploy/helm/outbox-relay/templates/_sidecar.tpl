{{- /*
For the Deployment of your own chart, with mode: sidecar. Each takes the context of this chart:

  {{- $relay := index .Subcharts "outbox-relay" }}

outbox-relay.podAnnotations  pods start again when config changes
outbox-relay.sidecar         an item of initContainers
outbox-relay.wakeMount       an item of your container's volumeMounts: Outbox(wake="unix:/run/outbox-relay/wake.sock")
outbox-relay.volumes         items of volumes
*/ -}}

{{- define "outbox-relay.sidecar" -}}
- {{ include "outbox-relay.container" . | nindent 2 | trim }}
{{- end }}

{{- define "outbox-relay.volumes" -}}
{{ include "outbox-relay.volumesOf" (list (include "outbox-relay.fullname" .) .) }}
{{- if include "outbox-relay.wakes" . }}
- name: {{ include "outbox-relay.name" . }}-run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- end }}

{{- define "outbox-relay.wakeMount" -}}
- name: {{ include "outbox-relay.name" . }}-run
  mountPath: /run/outbox-relay
{{- end }}

{{- define "outbox-relay.podAnnotations" -}}
checksum/{{ include "outbox-relay.name" . }}: {{ include "outbox-relay.toml" . | sha256sum }}
{{- end }}
