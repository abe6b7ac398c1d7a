{{/* Name of the chart's objects; 40 characters leave room for the longest suffix. */}}
{{- define "tailrace.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "tailrace.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Pods of the Deployment, but not of the hook and the test. */}}
{{- define "tailrace.podSelector" -}}
{{ include "tailrace.selectorLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tailrace.labels" -}}
{{ include "tailrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tailrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "tailrace.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ required "serviceAccount.name: name the account to use, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "tailrace.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end -}}
{{- end }}

{{- define "tailrace.routers" -}}
{{- default (printf "%s-admin.%s.svc:9090" (include "tailrace.fullname" .) .Release.Namespace) .Values.gate.routers -}}
{{- end }}

{{/* The Secret with the certificate of the webhook, whoever makes it. */}}
{{- define "tailrace.webhookSecret" -}}
{{- default (printf "%s-webhook" (include "tailrace.fullname" .)) .Values.webhook.certificate.secretName -}}
{{- end }}

{{/* The environment of `tailrace run`: every key of `settings`, and what follows from the release. */}}
{{- define "tailrace.env" -}}
- name: TAILRACE_REPLICA
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: TAILRACE_POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: TAILRACE_NODE
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: TAILRACE_ADVERTISE_ADDRESS
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: TAILRACE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: TAILRACE_LEASE_NAME
  value: {{ include "tailrace.fullname" . }}
- name: TAILRACE_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: TAILRACE_GATE_IMAGE
  value: {{ default (include "tailrace.image" .) .Values.gate.image | quote }}
- name: TAILRACE_GATE_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy }}
- name: TAILRACE_GATE_ROUTERS
  value: {{ include "tailrace.routers" . | quote }}
{{- if .Values.webhook.enabled }}
- name: TAILRACE_WEBHOOK_CERTIFICATES
  value: /var/run/secrets/tailrace-webhook
{{- end }}
{{- range $key, $value := .Values.settings }}
- name: TAILRACE_{{ snakecase $key | upper }}
  value: {{ include "tailrace.plain" $value | quote }}
{{- end }}
{{- end }}

{{/* A value as the environment has it: lists by commas; numbers as JSON writes them, never as 3.3e+07. */}}
{{- define "tailrace.plain" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{- define "tailrace.gracePeriod" -}}
{{- with .Values.settings -}}
{{ add (ceil .settleSeconds) (ceil .shutdownSeconds) $.Values.terminationMarginSeconds }}
{{- end -}}
{{- end }}

{{/* Name of objects that belong to no namespace or to others' namespaces: releases of one name do not meet there. */}}
{{- define "tailrace.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "tailrace.fullname" .) }}
{{- end }}

{{/* Annotations of what lives only at the end of `helm uninstall`. */}}
{{- define "tailrace.uninstallHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
