{{- define "tokenkeep.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "tokenkeep.account" -}}
{{- default (include "tokenkeep.name" .) .Values.serviceAccount.name -}}
{{- end }}

{{- define "tokenkeep.labels" -}}
app.kubernetes.io/name: {{ include "tokenkeep.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tokenkeep.image" -}}
{{- with .Values.image -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{/* What neither container may do. */}}
{{- define "tokenkeep.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The agent: it starts before the program, and ends after it. Nothing outside the Pod can
ask it, the kubelet included, so it has no probe. */}}
{{- define "tokenkeep.agent" -}}
name: tokenkeep
image: {{ include "tokenkeep.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always
args:
- serve
- {{ printf "--store=%s" .Values.store | quote }}
- --listen=unix:/run/tokenkeep/agent.sock
{{- range .Values.args }}
- {{ . | quote }}
{{- end }}
env:
{{- if .Values.keysSecret }}
- {name: TOKENKEEP_KEYS_FILE, value: /etc/tokenkeep/keys.json}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
securityContext:
{{- include "tokenkeep.locked" . | nindent 2 }}
resources:
{{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
- {name: socket, mountPath: /run/tokenkeep}
- {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- if .Values.keysSecret }}
- {name: keys, mountPath: /etc/tokenkeep, readOnly: true}
{{- end }}
{{- end }}
