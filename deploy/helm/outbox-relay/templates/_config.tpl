{{- /*
config.toml out of the values. JSON's texts, lists and truth are TOML's, and its numbers keep their kind;
toToml writes every one of them as a float, which is no port.
*/ -}}

{{- define "outbox-relay.secretsFolder" -}}/etc/outbox-relay-secrets{{- end }}

{{- define "outbox-relay.toml" -}}
{{- $settings := deepCopy .Values.config -}}
{{- range $setting, $_ := .Values.secrets -}}
{{- $section := index (splitList "." $setting) 0 -}}
{{- $values := get $settings $section | default dict -}}
{{- $path := printf "%s/%s" (include "outbox-relay.secretsFolder" $) $setting -}}
{{- $_ := set $values (index (splitList "." $setting) 1) $path -}}
{{- $_ := set $settings $section $values -}}
{{- end -}}
{{- range $section, $values := $settings -}}
[{{ $section }}]
{{- range $key, $value := $values }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}

{{ end -}}
{{- end }}

{{- define "outbox-relay.httpEnabled" -}}
{{- if ne (dig "http" "enabled" true .Values.config | toString) "false" }}true{{ end -}}
{{- end }}

{{- define "outbox-relay.httpPort" -}}
{{- dig "http" "port" 9464 .Values.config | int -}}
{{- end }}

{{- define "outbox-relay.stopSeconds" -}}
{{- dig "relay" "stop_seconds" 10 .Values.config -}}
{{- end }}

{{- /* Ports that a URL or a list of servers names, each a line. */ -}}
{{- define "outbox-relay.databasePorts" -}}
{{- if .Values.networkPolicy.databasePorts -}}
{{- join "," .Values.networkPolicy.databasePorts -}}
{{- else -}}
{{- $url := urlParse .Values.config.database.url -}}
{{- $usual := ternary "5432" "3306" (hasPrefix "postgresql" $url.scheme) -}}
{{- default $usual (regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host)) -}}
{{- end -}}
{{- end }}

{{- define "outbox-relay.brokerPorts" -}}
{{- $kind := dig "broker" "kind" "kafka" .Values.config -}}
{{- if .Values.networkPolicy.brokerPorts -}}
{{- join "," .Values.networkPolicy.brokerPorts -}}
{{- else if eq $kind "kafka" -}}
{{- $ports := list -}}
{{- range splitList "," (dig "kafka" "bootstrap_servers" "" .Values.config) -}}
{{- $ports = append $ports (default "9092" (regexFind "[0-9]+$" (regexFind ":[0-9]+$" (trim .)))) -}}
{{- end -}}
{{- join "," (uniq $ports) -}}
{{- else if eq $kind "amqp" -}}
{{- $url := urlParse (dig "amqp" "url" "" .Values.config) -}}
{{- default (ternary "5671" "5672" (eq $url.scheme "amqps")) (regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host)) -}}
{{- else if hasPrefix "redis" $kind -}}
{{- $url := urlParse (dig "redis" "url" "" .Values.config) -}}
{{- default "6379" (regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host)) -}}
{{- end -}}
{{- end }}
