{{- define "skyoperator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "skyoperator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "skyoperator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "skyoperator.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "skyoperator.controllerName" -}}
{{ include "skyoperator.fullname" . }}-controller
{{- end }}

{{- define "skyoperator.skypilotName" -}}
{{ include "skyoperator.fullname" . }}-skypilot
{{- end }}

{{- define "skyoperator.logsName" -}}
{{ include "skyoperator.fullname" . }}-logs
{{- end }}

{{- define "skyoperator.workloadsName" -}}
{{ include "skyoperator.fullname" . }}-workloads
{{- end }}

{{- /* Name of a cluster-scoped object: (list . "what"). Neither part holds a dot, so two releases never share one. */ -}}
{{- define "skyoperator.clusterScopedName" -}}
{{- $root := index . 0 -}}
{{ include "skyoperator.fullname" $root }}.{{ $root.Release.Namespace }}.{{ index . 1 }}
{{- end }}

{{- define "skyoperator.workloadsNamespace" -}}
{{- $namespace := default (printf "%s-workloads" .Release.Namespace) .Values.workloads.namespace -}}
{{- if eq $namespace .Release.Namespace -}}
{{- fail (printf "workloads.namespace is %q, the release namespace: clusters would run beside the API server, reach its Secrets' namespace and escape the NetworkPolicies. Choose another." $namespace) -}}
{{- end -}}
{{- $namespace -}}
{{- end }}

{{- define "skyoperator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/part-of: skyoperator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "skyoperator.releaseLabels" . }}
{{- end }}

{{- define "skyoperator.releaseLabels" -}}
app.kubernetes.io/name: {{ include "skyoperator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "skyoperator.controllerSelector" -}}
{{ include "skyoperator.releaseLabels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "skyoperator.skypilotSelector" -}}
{{ include "skyoperator.releaseLabels" . }}
app.kubernetes.io/component: skypilot
{{- end }}

{{- define "skyoperator.logsSelector" -}}
{{ include "skyoperator.releaseLabels" . }}
app.kubernetes.io/component: logs
{{- end }}

{{- define "skyoperator.logsApiServiceName" -}}
v1alpha1.logs.skyoperator.dev
{{- end }}

{{- /* "true" if this release is to serve the APIService: unless it is said, only where there can be no other release. */ -}}
{{- define "skyoperator.logsApiService" -}}
{{- $enabled := .Values.logs.apiService.enabled -}}
{{- if and .Values.logs.enabled (ternary $enabled .Values.watchAllNamespaces (kindIs "bool" $enabled)) -}}
true
{{- end -}}
{{- end }}

{{- define "skyoperator.endpoint" -}}
{{- if .Values.skypilot.enabled -}}
http://{{ include "skyoperator.skypilotName" . }}.{{ .Release.Namespace }}.svc:46580
{{- else -}}
{{- required "skypilot.endpoint is required with skypilot.enabled=false: the URL of your SkyPilot API server." .Values.skypilot.endpoint -}}
{{- end -}}
{{- end }}

{{- define "skyoperator.credentialsSecret" -}}
{{- if .Values.skypilot.enabled -}}
{{- default (printf "%s-credentials" (include "skyoperator.skypilotName" .)) .Values.skypilot.auth.existingSecret -}}
{{- else -}}
{{- required "skypilot.credentialsSecret is required with skypilot.enabled=false: a Secret with username and password, or token." .Values.skypilot.credentialsSecret -}}
{{- end -}}
{{- end }}

{{- define "skyoperator.loginSecret" -}}
{{ include "skyoperator.skypilotName" . }}-login
{{- end }}

{{- /* The generated password: the one of the Secret in the cluster if there is one. */ -}}
{{- define "skyoperator.password" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "skyoperator.credentialsSecret" .) -}}
{{- if $secret -}}
{{- index $secret.data "password" | b64dec -}}
{{- else -}}
{{- randAlphaNum 40 -}}
{{- end -}}
{{- end }}

{{- /* Changes when a Secret that the chart did not write was changed: rolls the pods that read it. Says nothing of its content. */ -}}
{{- define "skyoperator.credentialsVersion" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "skyoperator.credentialsSecret" .) -}}
{{- if and $secret (or (not .Values.skypilot.enabled) .Values.skypilot.auth.existingSecret) -}}
{{- $secret.metadata.resourceVersion -}}
{{- end -}}
{{- end }}

{{- define "skyoperator.controllerRules" -}}
- apiGroups: [skyoperator.dev]
  resources: [skyclusters]
  verbs: [delete, get, list, watch, patch, update]
- apiGroups: [skyoperator.dev]
  resources: [skyclusters/status]
  verbs: [get, patch, update]
- apiGroups: [skyoperator.dev]
  resources: [skyclusters/finalizers]
  verbs: [update]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get]
{{- end }}

{{- define "skyoperator.logsRules" -}}
- apiGroups: [skyoperator.dev]
  resources: [skyclusters]
  verbs: [get, list, watch]
- apiGroups: [skyoperator.dev]
  resources: [skyclusters/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- end }}

{{- /* What the Airflow provider asks for (airflow_plugin, hooks/requests.py); watch is the triggerer's. */ -}}
{{- define "skyoperator.airflowRules" -}}
- apiGroups: [skyoperator.dev]
  resources: [skyclusters]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.logs.enabled }}
- apiGroups: [logs.skyoperator.dev]
  resources: [skyclusters/log, skyclusters/result]
  verbs: [get]
{{- end }}
{{- end }}

{{- define "skyoperator.airflowSubjects" -}}
{{- range uniq .Values.airflow.accounts }}
- {kind: ServiceAccount, name: {{ .name }}, namespace: {{ .namespace }}}
{{- end }}
{{- end }}

{{- /* Two controllers on one object would launch it twice: fails if another release serves the namespace of (list . namespace). */ -}}
{{- define "skyoperator.failIfServed" -}}
{{- $root := index . 0 -}}
{{- $roles := lookup "rbac.authorization.k8s.io/v1" "Role" (index . 1) "" -}}
{{- range dig "items" list ($roles | default dict) -}}
{{- $owner := printf "%s/%s" (dig "metadata" "annotations" "meta.helm.sh/release-namespace" "" .) (dig "metadata" "annotations" "meta.helm.sh/release-name" "" .) -}}
{{- $served := eq (dig "metadata" "labels" "skyoperator.dev/serves" "" .) "skyclusters" -}}
{{- if and $served (ne $owner (printf "%s/%s" $root.Release.Namespace $root.Release.Name)) -}}
{{- fail (printf "watchNamespaces: %q is served by the release %s already. Take it out of the values of one of the two." (index $ 1) $owner) -}}
{{- end -}}
{{- end -}}
{{- end }}
