{{- /* What the schema cannot say. All problems at once, each with what to do. */ -}}

{{- define "outbox-relay.check" -}}
{{- $problems := list -}}
{{- $config := .Values.config -}}
{{- $names := list -}}
{{- range .Values.extraEnv -}}{{- $names = append $names .name -}}{{- end -}}

{{- $url := dig "database" "url" "" $config -}}
{{- if and (not $url) (not (has "OUTBOX_RELAY_DATABASE__URL" $names)) -}}
{{- $problems = append $problems "config.database.url is required, such as mysql+asyncmy://shop@mariadb:3306/shop" -}}
{{- end -}}
{{- range $section, $instead := dict "database" "database.password_file" "amqp" "amqp.password_file" "redis" "redis.password_file" -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" (dig $section "url" "" $config) -}}
{{- $problems = append $problems (printf "config.%s.url holds a password, which everybody may read in the ConfigMap: leave it out, and name a Secret in secrets.\"%s\"" $section $instead) -}}
{{- end -}}
{{- end -}}
{{- if dig "kafka" "sasl_password" "" $config -}}
{{- $problems = append $problems "config.kafka.sasl_password would be in the ConfigMap, which everybody may read: name a Secret in secrets.\"kafka.sasl_password_file\"" -}}
{{- end -}}

{{- $kind := dig "broker" "kind" "kafka" $config -}}
{{- $needed := get (dict "kafka" "kafka.bootstrap_servers" "amqp" "amqp.url" "redis_streams" "redis.url" "redis_pubsub" "redis.url") $kind -}}
{{- if $needed -}}
{{- $parts := splitList "." $needed -}}
{{- $variable := printf "OUTBOX_RELAY_%s" ($needed | replace "." "__" | upper) -}}
{{- if and (not (dig (index $parts 0) (index $parts 1) "" $config)) (not (has $variable $names)) -}}
{{- $problems = append $problems (printf "config.%s is required: where the broker is" $needed) -}}
{{- end -}}
{{- end -}}

{{- range $setting, $_ := .Values.secrets -}}
{{- $parts := splitList "." $setting -}}
{{- if dig (index $parts 0) (index $parts 1) "" $config -}}
{{- $problems = append $problems (printf "%s is in config and in secrets: keep one" $setting) -}}
{{- end -}}
{{- end -}}

{{- $least := add1 (ceil (include "outbox-relay.stopSeconds" . | float64)) -}}
{{- $grace := .Values.terminationGracePeriodSeconds -}}
{{- if and $grace (le (int64 $grace) (int64 $least)) -}}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds = %d must be greater than config.relay.stop_seconds + 1 = %d: the relay would be killed at work, and its last events come twice" (int64 $grace) $least) -}}
{{- end -}}

{{- if and .Values.podMonitor.enabled (not (include "outbox-relay.httpEnabled" .)) -}}
{{- $problems = append $problems "podMonitor.enabled needs config.http.enabled: there are no metrics without it" -}}
{{- end -}}
{{- if and .Values.migrate.enabled (eq (dig "database" "layout" "outbox" $config) "python-cqrs") -}}
{{- $problems = append $problems "migrate.enabled must be false with config.database.layout = python-cqrs: run `outbox-relay adopt python-cqrs --prepare` by hand" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not $url) (not .Values.networkPolicy.databasePorts) -}}
{{- $problems = append $problems "networkPolicy.databasePorts is required where config.database.url does not say it" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (eq $kind "jsonl") (not .Values.networkPolicy.brokerPorts) -}}{{- else if and .Values.networkPolicy.enabled (not (include "outbox-relay.brokerPorts" .)) -}}
{{- $problems = append $problems "networkPolicy.brokerPorts is required where config does not say where the broker is" -}}
{{- end -}}

{{- if and (include "outbox-relay.wakes" .) (dig "relay" "wake_address" "" $config) -}}
{{- $problems = append $problems "config.relay.wake_address is set by sidecar.wake: keep one" -}}
{{- end -}}
{{- if eq .Values.mode "sidecar" -}}
{{- if not (semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- $problems = append $problems (printf "mode = sidecar needs Kubernetes 1.29 or later, this is %s: use mode = standalone" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (or .Values.podMonitor.enabled .Values.networkPolicy.enabled) (not .Values.sidecar.podLabels) -}}
{{- $problems = append $problems "sidecar.podLabels is required by podMonitor and networkPolicy: the labels of your pods that hold the relay" -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- if not (or .Values.networkPolicy.extraEgress .Values.networkPolicy.extraIngress) -}}
{{- $problems = append $problems "networkPolicy.enabled with mode = sidecar also cuts your application off: say what it needs in networkPolicy.extraEgress and extraIngress" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if $problems -}}
{{- fail (printf "\n\nThe values of %s do not fit:\n- %s\n" .Chart.Name (join "\n- " $problems)) -}}
{{- end -}}
{{- end }}
