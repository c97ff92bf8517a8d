{{- define "hanmo.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hanmo.fullname" -}}
{{- $name := include "hanmo.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
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
{{- if and .Values.gateway.enabled .Values.tls.enabled .Values.tls.clientCA (not .Values.gateway.upstream.clientCertSecret) -}}
{{ fail "gateway.upstream.clientCertSecret: tls.clientCA demands a certificate of the gateway, too; name its Secret" }}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{ fail "autoscaling.minReplicas: must not be above autoscaling.maxReplicas" }}
{{- end -}}
{{- end }}
