{{/* Rights in the namespaces that are served. The same as in manifests/base/rbac.yaml; a test holds them equal. */}}
{{- define "tailrace.rights.namespaced" -}}
- apiGroups: [inference.tailrace.dev]
  resources: [inferenceservers]
  verbs: [get, list, watch]
- apiGroups: [inference.tailrace.dev]
  resources: [inferenceservers/status]
  verbs: [patch]
# To be the controlling owner of a Deployment, where the API server asks for this right.
- apiGroups: [inference.tailrace.dev]
  resources: [inferenceservers/finalizers]
  verbs: [update]
# patch: our label, finalizer and annotations, and the deletion cost.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
# The budget of an InferenceServer with disruptionBudget; delete: when it asks for none any more.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* Rights that no namespace can grant. */}}
{{- define "tailrace.rights.cluster" -}}
# Labels tell GPU memory; a lost node ends the drains of its pods.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
# Who calls the admin port, and may they.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end }}

{{/* Rights to take a finalizer off pods. */}}
{{- define "tailrace.rights.release" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, patch]
{{- end }}
