{{- /* What a pod with a relay holds: the container, its volumes. */ -}}

{{- define "outbox-relay.container" -}}
name: {{ include "outbox-relay.name" . }}
image: {{ include "outbox-relay.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if eq .Values.mode "sidecar" }}
# What makes an init container a sidecar.
restartPolicy: Always
{{- end }}
{{- if or .Values.extraEnv (include "outbox-relay.wakes" .) }}
env:
  {{- if include "outbox-relay.wakes" . }}
  - name: OUTBOX_RELAY_RELAY__WAKE_ADDRESS
    value: unix:/run/outbox-relay/wake.sock,udp:0.0.0.0:{{ .Values.sidecar.wakeUdpPort }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if or (include "outbox-relay.httpEnabled" .) (include "outbox-relay.wakes" .) }}
ports:
  {{- if include "outbox-relay.httpEnabled" . }}
  - name: relay-http
    containerPort: {{ include "outbox-relay.httpPort" . }}
  {{- end }}
  {{- if include "outbox-relay.wakes" . }}
  - name: relay-wake
    containerPort: {{ .Values.sidecar.wakeUdpPort }}
    protocol: UDP
  {{- end }}
{{- end }}
{{- if include "outbox-relay.httpEnabled" . }}
# No readinessProbe and no startupProbe: an outage of the broker is no reason to take an application
# out of service, nor to keep it from starting.
livenessProbe:
  httpGet:
    path: /livez
    port: relay-http
  {{- toYaml .Values.livenessProbe | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "outbox-relay.mounts" . | nindent 2 }}
  {{- if include "outbox-relay.wakes" . }}
  {{- include "outbox-relay.wakeMount" . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "outbox-relay.mounts" -}}
- name: {{ include "outbox-relay.name" . }}-config
  mountPath: /etc/outbox-relay
  readOnly: true
{{- if .Values.secrets }}
- name: {{ include "outbox-relay.name" . }}-secrets
  mountPath: {{ include "outbox-relay.secretsFolder" . }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* *configMap*, then the context: the migration has a ConfigMap of its own. */ -}}
{{- define "outbox-relay.volumesOf" -}}
{{- $ := index . 1 -}}
- name: {{ include "outbox-relay.name" $ }}-config
  configMap:
    name: {{ index . 0 }}
{{- if $.Values.secrets }}
- name: {{ include "outbox-relay.name" $ }}-secrets
  projected:
    # Only the containers of this pod that mount it can read it, whatever their users are.
    defaultMode: 0444
    sources:
      {{- range $setting, $from := $.Values.secrets }}
      - secret:
          name: {{ $from.name }}
          items:
            - key: {{ $from.key }}
              path: {{ $setting }}
      {{- end }}
{{- end }}
{{- with $.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "outbox-relay.wakes" -}}
{{- if and (eq .Values.mode "sidecar") .Values.sidecar.wake }}true{{ end -}}
{{- end }}

{{- define "outbox-relay.graceSeconds" -}}
{{- $least := add 6 (ceil (include "outbox-relay.stopSeconds" . | float64)) -}}
{{- default $least .Values.terminationGracePeriodSeconds | int64 -}}
{{- end }}
