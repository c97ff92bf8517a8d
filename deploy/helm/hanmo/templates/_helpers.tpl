{{- define "hanmo.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 46 characters: the names of pods add 16 and are cut at 63, and autoscaling.yaml finds the pods by them. */}}
{{- define "hanmo.fullname" -}}
{{- $name := include "hanmo.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "hanmo.selector" -}}
app.kubernetes.io/name: {{ include "hanmo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hanmo.labels" -}}
{{ include "hanmo.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "hanmo.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- define "hanmo.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "hanmo.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "hanmo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "hanmo.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What the server may take after TERM, and 10 s for the ends of connections and workers. */}}
{{- define "hanmo.gracePeriod" -}}
{{- with .Values.drain }}{{ add .preStopSeconds .delaySeconds .timeoutSeconds 10 }}{{ end -}}
{{- end }}

{{/* A value of the configuration file. Numbers come as floats, which would be written as 1e+06. */}}
{{- define "hanmo.option" -}}
{{- if kindIs "float64" . }}{{ int64 . }}
{{- else }}{{ toJson . }}
{{- end -}}
{{- end }}

{{- define "hanmo.modelMount" -}}
{{- if ne .Values.models.source "bundled" }}
- name: models
  mountPath: {{ .Values.models.path }}
  readOnly: true
  {{- if and .Values.models.subPath (ne .Values.models.source "imageCopy") }}
  subPath: {{ .Values.models.subPath }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Native sidecars: they run before the server starts and end after it has drained, each in a container
of its own, because a lack of memory kills all processes of a container. */}}
{{- define "hanmo.worker" -}}
{{- $root := .root -}}
{{- $workers := $root.Values.workers -}}
{{- $limits := $workers.resources.limits | default dict -}}
{{- $requests := $workers.resources.requests | default dict -}}
{{- $cuda := eq $workers.device "cuda" -}}
{{- $cpus := ternary "limits.cpu" (ternary "requests.cpu" "" (hasKey $requests "cpu")) (hasKey $limits "cpu") -}}
{{- if $workers.threads }}{{ $cpus = "" }}{{ end -}}
- name: worker-{{ .index }}
  image: {{ include "hanmo.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  restartPolicy: Always
  command: [hanmo-worker]
  args:
    - --listen=unix:/run/hanmo/worker-{{ .index }}.sock
    - --device={{ ternary "cuda:0" "cpu" $cuda }}
    - --threads={{ ternary "$(WORKER_CPUS)" $workers.threads (ne $cpus "") }}
    - --log-level={{ get $root.Values.config "log-level" | default "info" | replace "warning" "warn" }}
    {{- with $workers.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $cpus $cuda }}
  env:
    {{- with $cpus }}
    - name: WORKER_CPUS
      valueFrom:
        resourceFieldRef: {resource: {{ . }}, divisor: "1"}
    {{- end }}
    {{- if $cuda }}
    - {name: CUDA_CACHE_PATH, value: /tmp/cuda}
    - {name: NVIDIA_DRIVER_CAPABILITIES, value: "compute,utility"}
    {{- end }}
  {{- end }}
  resources:
    {{- with $requests }}
    requests: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with (ternary (merge (dict $workers.gpuResource 1) $limits) $limits $cuda) }}
    limits: {{- toYaml . | nindent 6 }}
    {{- end }}
  securityContext: {{- include "hanmo.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: sockets, mountPath: /run/hanmo}
    - {name: tmp, mountPath: /tmp}
    {{- include "hanmo.modelMount" $root | nindent 4 }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "hanmo.check" -}}
{{- if and .Values.tests.enabled .Values.tls.enabled .Values.tls.clientCA (not .Values.tests.clientCertSecret) -}}
{{ fail "tests.clientCertSecret: tls.clientCA demands a certificate of the test pod, too; name its Secret, or set tests.enabled=false" }}
{{- end -}}
{{- if and (or .Values.gateway.enabled .Values.gateway.sidecar) .Values.tls.enabled .Values.tls.clientCA (not .Values.gateway.upstream.clientCertSecret) -}}
{{ fail "gateway.upstream.clientCertSecret: tls.clientCA demands a certificate of the gateway, too; name its Secret" }}
{{- end -}}
{{- with .Values.networkPolicy -}}
{{- $collector := get $.Values.config "otlp-endpoint" | default "" -}}
{{- if and .enabled $collector (not .egress) (not (regexMatch "^(https?://)?(127\\.|localhost[:/]|\\[::1\\])" $collector)) -}}
{{ fail "networkPolicy.egress: config.otlp-endpoint names a collector, and without egress rules no trace would reach it; add one for its port and one for DNS" }}
{{- end -}}
{{- $mutual := and $.Values.tls.enabled $.Values.tls.clientCA -}}
{{- if and $.Values.admin.enabled $.Values.admin.expose (not $mutual) (not (and .enabled .admin)) -}}
{{ fail "networkPolicy.admin: admin.expose opens hanmo.v1.Admin to whoever reaches the pods; name its callers here, with networkPolicy.enabled, or demand certificates with tls.clientCA" }}
{{- end -}}
{{- if and .enabled (or $.Values.gateway.enabled $.Values.gateway.sidecar) .gatewayClients (not .metrics) -}}
{{ fail "networkPolicy.metrics: the gateway's metrics are at the port of its clients, so networkPolicy.gatewayClients would shut Prometheus out; name who scrapes, too" }}
{{- end -}}
{{- end -}}
{{- if and .Values.gateway.enabled .Values.gateway.sidecar -}}
{{ fail "gateway.sidecar: the gateway is either beside the servers or, with gateway.enabled, a Deployment" }}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{ fail "autoscaling.minReplicas: must not be above autoscaling.maxReplicas" }}
{{- end -}}
{{- end }}
