{{/* What the chart adds to the metadata of a definition. */}}
{{- define "tailrace-crds.metadata" -}}
labels:
  app.kubernetes.io/name: tailrace
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge dict .Values.annotations (ternary (dict "helm.sh/resource-policy" "keep") dict .Values.keep) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
