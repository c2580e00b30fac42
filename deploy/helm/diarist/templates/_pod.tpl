{{/* What the pods of the API and of workers have in common. Takes root, part (the values of the API
     or of a group), labels (what selects its pods). */}}
{{- define "diarist.annotations" -}}
checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
{{- if not .root.Values.existingSecret }}
checksum/secret: {{ include (print .root.Template.BasePath "/secret.yaml") .root | sha256sum }}
{{- end }}
{{- with .part.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "diarist.pod" -}}
automountServiceAccountToken: {{ .root.Values.serviceAccount.automountToken }}
{{- with .root.Values.serviceAccount.name }}
serviceAccountName: {{ . | quote }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .part.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .part.topologySpreadConstraints }}
  {{- toYaml .part.topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- .labels | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "diarist.container" -}}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) (.part.image | default dict) -}}
image: {{ printf "%s:%s" $image.repository (toString $image.tag) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
securityContext: {{ toYaml .root.Values.securityContext | nindent 2 }}
resources: {{ toYaml .part.resources | nindent 2 }}
envFrom:
  - configMapRef:
      name: {{ include "diarist.name" .root }}
{{- end -}}

{{- define "diarist.mounts" -}}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- if .root.Values.media.existingClaim }}
- name: media
  mountPath: /media
{{- end }}
{{- end -}}

{{- define "diarist.volumes" -}}
- name: data
  emptyDir:
    sizeLimit: {{ .part.dataSize | quote }}
- name: tmp
  emptyDir:
    sizeLimit: 2Gi
{{- with .root.Values.media.existingClaim }}
- name: media
  persistentVolumeClaim:
    claimName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* A setting as text. Helm holds numbers as floats, and would write a large one as 1.048576e+06. */}}
{{- define "diarist.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
{{- end -}}

{{/* Settings from the secret, as a container's environment. Takes root, needed and wanted (names). */}}
{{- define "diarist.secrets" -}}
{{- range $name := concat .needed .wanted }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "diarist.secret" $.root }}
      key: {{ $name }}
      {{- if has $name $.wanted }}
      optional: true
      {{- end }}
{{- end }}
{{- end -}}

{{/* A map of settings as a container's environment. */}}
{{- define "diarist.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ include "diarist.text" $value | quote }}
{{- end }}
{{- end -}}
