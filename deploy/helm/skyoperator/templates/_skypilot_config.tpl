{{- /*
SkyPilot's config.yaml. NO_UPLOAD: without it every cluster gets a copy of the server's credential files
(sky/backends/backend_utils.py, write_cluster_config). The clouds of skypilot.remoteIdentity are those whose schema knows
remote_identity. Kubernetes needs both: the account for pods in this cluster, and NO_UPLOAD, or a kubeconfig that the server
has for other clusters would be copied to the machines of every cloud.
*/ -}}
{{- define "skyoperator.skypilotConfig" -}}
{{- $config := dict
      "allowed_clouds" .Values.skypilot.allowedClouds
      "jobs" (dict "controller" (dict "consolidation_mode" false))
      "kubernetes" (dict
        "namespace" (include "skyoperator.workloadsNamespace" .)
        "remote_identity" "NO_UPLOAD"
        "context_configs" (dict "in-cluster" (dict "remote_identity" (include "skyoperator.workloadsName" .)))
        "provision_timeout" .Values.skypilot.provisionTimeoutSeconds
        "pod_config" (include "skyoperator.podConfig" . | fromYaml)) -}}
{{- range $cloud, $identity := .Values.skypilot.remoteIdentity -}}
{{- $_ := set $config $cloud (dict "remote_identity" $identity) -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .Values.skypilot.config) | toYaml -}}
{{- end }}

{{- define "skyoperator.podConfig" -}}
{{- $spec := dict "securityContext" (dict "seccompProfile" (dict "type" "RuntimeDefault")) -}}
{{- if not .Values.workloads.autodown -}}
{{- $_ := set $spec "automountServiceAccountToken" false -}}
{{- end -}}
{{- if .Values.skypilot.offline.enabled -}}
{{- $env := list (dict "name" "UV_OFFLINE" "value" "1") -}}
{{- $_ := set $spec "containers" (list (dict "imagePullPolicy" "IfNotPresent" "env" $env)) -}}
{{- end -}}
{{- mergeOverwrite (dict "spec" $spec) (deepCopy .Values.skypilot.podConfig) | toYaml -}}
{{- end }}
