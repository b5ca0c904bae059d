{{/*
The relay as a container: what the Deployment uses, and what another chart may use, called with this chart's context.
*/}}
{{- define "outbox-relay.container" -}}
name: outbox-relay
{{ include "outbox-relay.containerBase" . }}
ports:
  - name: relay-http
    containerPort: {{ int64 .Values.httpPort }}
    protocol: TCP
startupProbe:
  httpGet:
    path: /livez
    port: relay-http
  {{- toYaml .Values.startupProbe | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: relay-http
  {{- toYaml .Values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: relay-http
  {{- toYaml .Values.readinessProbe | nindent 2 }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
One entry for `initContainers` of any pod: restartPolicy Always makes it a native sidecar (Kubernetes 1.29+), started
before the pod's own containers and stopped after them, so that their last events still leave.
*/}}
{{- define "outbox-relay.sidecar" -}}
{{ include "outbox-relay.container" . }}
restartPolicy: Always
{{- end -}}

{{/* An init container that applies the migrations; add it before the relay. */}}
{{- define "outbox-relay.migrateContainer" -}}
name: outbox-relay-migrate
{{ include "outbox-relay.containerBase" . }}
args:
  - migrate
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "outbox-relay.containerBase" -}}
image: {{ include "outbox-relay.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  {{- include "outbox-relay.env" . | nindent 2 }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- if or .Values.existingSecret.files .Values.extraVolumeMounts }}
volumeMounts:
  {{- if .Values.existingSecret.files }}
  - name: outbox-relay-secrets
    mountPath: /etc/outbox-relay/secrets
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "outbox-relay.env" -}}
- name: BROKER
  value: {{ .Values.broker | quote }}
- name: HTTP_PORT
  value: {{ int64 .Values.httpPort | quote }}
- name: LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
- name: SHUTDOWN_TIMEOUT_MS
  value: {{ int64 .Values.shutdownTimeoutMs | quote }}
{{- range $name, $value := .Values.config }}
- name: {{ $name }}
  {{- /* Helm reads every number as a float: 67108864 would become 6.7108864e+07. The schema lets only integers in. */}}
  value: {{ ternary ($value | int64 | toString) ($value | toString) (kindIs "float64" $value) | quote }}
{{- end }}
{{- if or .Values.existingSecret.env .Values.existingSecret.files }}
{{- $secret := required "existingSecret.name is needed by existingSecret.env and existingSecret.files" .Values.existingSecret.name }}
{{- range $name, $key := .Values.existingSecret.env }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $key | quote }}
{{- end }}
{{- range $name, $key := .Values.existingSecret.files }}
- name: {{ $name }}_FILE
  value: {{ printf "/etc/outbox-relay/secrets/%s" $key | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Entries for `volumes` of the pod; empty when nothing is mounted. */}}
{{- define "outbox-relay.volumes" -}}
{{- if .Values.existingSecret.files }}
- name: outbox-relay-secrets
  secret:
    secretName: {{ .Values.existingSecret.name }}
    {{- /* Readable by any uid: a pod that hosts the sidecar may set no fsGroup. Other containers don't mount it. */}}
    defaultMode: 0444
    items:
      {{- range $key := values .Values.existingSecret.files | uniq | sortAlpha }}
      - key: {{ $key | quote }}
        path: {{ $key | quote }}
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
