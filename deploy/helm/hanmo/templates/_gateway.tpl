{{/* The container of hanmo-gateway: in pods of its own, or beside a server, whose metrics it then shows with its own. */}}
{{- define "hanmo.gateway" -}}
{{- $root := .root -}}
{{- $sidecar := .sidecar -}}
{{- with $root.Values.gateway -}}
{{- $scheme := ternary "HTTPS" "HTTP" .tls.enabled -}}
- name: gateway
  image: {{ include "hanmo.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [hanmo-gateway]
  args:
    - --listen=0.0.0.0:8000
    {{- if $sidecar }}
    - --upstream=127.0.0.1:8001
    - --upstream-metrics=127.0.0.1:8002
    {{- else }}
    - --upstream=dns:///{{ include "hanmo.fullname" $root }}-headless-all:8001
    {{- end }}
    - --request-timeout={{ .requestTimeoutSeconds }}s
    - --shutdown-delay={{ $root.Values.drain.delaySeconds }}s
    - --shutdown-timeout={{ $root.Values.drain.timeoutSeconds }}s
    {{- if $root.Values.tls.enabled }}
    - --upstream-tls
    - --upstream-tls-name={{ .upstream.serverName | default (printf "%s-headless" (include "hanmo.fullname" $root)) }}
    {{- if .upstream.caSecret }}
    - --upstream-tls-ca=/etc/hanmo/ca/ca.crt
    {{- end }}
    {{- if .upstream.clientCertSecret }}
    - --upstream-tls-cert=/etc/hanmo/client/tls.crt
    - --upstream-tls-key=/etc/hanmo/client/tls.key
    {{- end }}
    {{- end }}
    {{- if .tls.enabled }}
    - --tls-cert=/etc/hanmo/tls/tls.crt
    - --tls-key=/etc/hanmo/tls/tls.key
    {{- end }}
    {{- with .extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: http, containerPort: 8000}
  startupProbe:
    httpGet: {path: /health/live, port: http, scheme: {{ $scheme }}}
    {{- toYaml $root.Values.probes.startup | nindent 4 }}
  livenessProbe:
    httpGet: {path: /health/live, port: http, scheme: {{ $scheme }}}
    {{- toYaml $root.Values.probes.liveness | nindent 4 }}
  # It asks a server, so nobody is sent here while none is ready.
  readinessProbe:
    httpGet: {path: /health, port: http, scheme: {{ $scheme }}}
    {{- toYaml $root.Values.probes.readiness | nindent 4 }}
  {{- if $root.Values.drain.preStopSeconds }}
  lifecycle:
    preStop:
      sleep: {seconds: {{ $root.Values.drain.preStopSeconds }}}
  {{- end }}
  resources: {{- toYaml .resources | nindent 4 }}
  securityContext: {{- include "hanmo.containerSecurity" $root | nindent 4 }}
  {{- if or $root.Values.tls.enabled .tls.enabled }}
  volumeMounts:
    {{- if .tls.enabled }}
    - {name: gateway-tls, mountPath: /etc/hanmo/tls, readOnly: true}
    {{- end }}
    {{- if $root.Values.tls.enabled }}
    {{- if .upstream.caSecret }}
    - {name: gateway-ca, mountPath: /etc/hanmo/ca, readOnly: true}
    {{- end }}
    {{- if .upstream.clientCertSecret }}
    - {name: gateway-client, mountPath: /etc/hanmo/client, readOnly: true}
    {{- end }}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end }}

{{- define "hanmo.gatewayVolumes" -}}
{{- with .Values.gateway }}
{{- if .tls.enabled }}
- name: gateway-tls
  secret: {secretName: {{ .tls.secretName }}, defaultMode: 288}
{{- end }}
{{- if $.Values.tls.enabled }}
{{- with .upstream.caSecret }}
- name: gateway-ca
  secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- with .upstream.clientCertSecret }}
- name: gateway-client
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Metrics are at the port of the clients. */}}
{{- define "hanmo.gatewayIngress" -}}
- ports:
    - {port: http, protocol: TCP}
  {{- with .Values.networkPolicy.gatewayClients }}
  from:
    {{- toYaml . | nindent 4 }}
    {{- toYaml $.Values.networkPolicy.metrics | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "hanmo.gatewayScheme" -}}
{{- if .Values.gateway.tls.enabled -}}
# Its certificate is for a name, and Prometheus calls addresses.
scheme: https
tlsConfig: {insecureSkipVerify: true}
{{- end -}}
{{- end }}
