{{- define "diarist.name" -}}
{{- $name := ternary .Release.Name (printf "%s-diarist" .Release.Name) (contains "diarist" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "diarist.secret" -}}
{{- .Values.existingSecret | default (include "diarist.name" .) -}}
{{- end -}}

{{- define "diarist.selector" -}}
app.kubernetes.io/name: diarist
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "diarist.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{ include "diarist.selector" . }}
{{- end -}}
