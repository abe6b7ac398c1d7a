"""The names that people and other programs meet: one place, so that they are never spelled twice."""

from typing import Final

GROUP: Final = "inference.tailrace.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceServer"
PLURAL: Final = "inferenceservers"
SINGULAR: Final = "inferenceserver"
SHORT_NAMES: Final = ("isvr",)
CATEGORIES: Final = ("all", "inference")
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

PREFIX: Final = "tailrace.dev"
FINALIZER: Final = f"{PREFIX}/drain"
"""On every pod that may hold requests; taken off only when they have ended, or at the deadline."""
LABEL_SERVER: Final = f"{PREFIX}/server"
"""On every pod: the name of its InferenceServer. The pod watch selects on it."""

ANNOTATION_DRAINING: Final = f"{PREFIX}/draining"
"""On a pod. Set by a person it is a manual cordon, and taking it off re-admits the pod."""
ANNOTATION_DRAIN_STARTED_AT: Final = f"{PREFIX}/drain-started-at"
ANNOTATION_DRAIN_REASON: Final = f"{PREFIX}/drain-reason"
ANNOTATION_GATE_MARK: Final = f"{PREFIX}/gate-drain"
"""On a pod whose gate called without a deletion: the incarnation that it holds. A new incarnation outdates it."""
ANNOTATION_DRAIN_TIMEOUT: Final = f"{PREFIX}/drain-timeout-seconds"
ANNOTATION_DRAIN_SETTLE: Final = f"{PREFIX}/drain-settle-seconds"
ANNOTATION_DRAIN_SHUTDOWN: Final = f"{PREFIX}/drain-shutdown-seconds"
"""The drain's figures live on the pod too, so that a pod whose owner is gone can still be ended."""

GATE_CONTAINER: Final = "drain-gate"
"""The sidecar that holds SIGTERM back; a template may not use the name itself."""
