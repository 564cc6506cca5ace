{{/* Begins all names. */}}
{{- define "outrider.name" -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Version of Kubernetes that is rendered for. */}}
{{- define "outrider.kubernetes" -}}
{{- .Values.kubernetesVersion | default .Capabilities.KubeVersion.Version | trimPrefix "v" | regexFind "^[0-9]+\\.[0-9]+" -}}
{{- end }}

{{/* "true" if that version is at least the second of (list $ "1.30"). */}}
{{- define "outrider.since" -}}
{{- if semverCompare (printf ">=%s.0-0" (index . 1)) (printf "%s.0" (include "outrider.kubernetes" (index . 0))) }}true{{ end -}}
{{- end }}

{{/* What selects a component's pods: (list $ "bridge"). It cannot be changed later. */}}
{{- define "outrider.selector" -}}
app.kubernetes.io/name: outrider
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of a component's objects: (list $ "bridge"). */}}
{{- define "outrider.labels" -}}
{{- $root := index . 0 -}}
{{ include "outrider.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: outrider
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Reference of an image: (list $ "proxy"). */}}
{{- define "outrider.image" -}}
{{- $values := (index . 0).Values -}}
{{- $image := index $values.images (index . 1) -}}
{{- $registry := $values.global.imageRegistry | default $image.registry | default $values.images.registry -}}
{{- $tag := $image.tag | default $values.images.tag | default (index . 0).Chart.AppVersion -}}
{{- $registry }}/{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $tag }}{{ end -}}
{{- end }}

{{- define "outrider.pullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.images.pullSecrets | uniq }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What Pod Security `restricted` asks for, and more. */}}
{{- define "outrider.restricted" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- if not .Values.openshift.enabled }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Probes of the health port. */}}
{{- define "outrider.probes" -}}
readinessProbe:
  httpGet: {path: /healthz/ready, port: metrics, scheme: HTTP}
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  httpGet: {path: /healthz/live, port: metrics, scheme: HTTP}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Where the pods of a Deployment run: (list $ "webhook"). Apart from each other if nobody says otherwise. */}}
{{- define "outrider.placement" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
priorityClassName: {{ $values.priorityClassName | quote }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "outrider.selector" . | nindent 14 }}
{{- end }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "outrider.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings of pods as one text, sorted: `key=value;key=value`. */}}
{{- define "outrider.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%v" $key $value) }}{{ end -}}
{{- join ";" $pairs -}}
{{- end }}

{{/* Name of the controller's certificate. */}}
{{- define "outrider.controllerName" -}}
{{ include "outrider.name" . }}-controller.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Takes the rules out of a schema, for API servers that don't know them: there the controller alone says what is wrong with an object. */}}
{{- define "outrider.withoutRules" -}}
{{- if kindIs "map" . -}}
{{- $_ := unset . "x-kubernetes-validations" -}}
{{- range . }}{{ include "outrider.withoutRules" . }}{{ end -}}
{{- else if kindIs "slice" . -}}
{{- range . }}{{ include "outrider.withoutRules" . }}{{ end -}}
{{- end -}}
{{- end }}
