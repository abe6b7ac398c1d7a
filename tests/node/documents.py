"""What the suite installs: values of the chart, and an InferenceServer whose engines abort on SIGTERM."""

from __future__ import annotations

import os
from typing import Any

from tests.cluster.servers import MODEL, Document, inference_server

IMAGE, OTHER_IMAGE = os.environ.get("TAILRACE_IMAGES", "localhost/tailrace:node,localhost/tailrace:other").split(",")
"""Two names of an image of Tailrace: on the node already, or such that it can pull them."""
PULL_POLICY = "IfNotPresent" if "TAILRACE_IMAGES" in os.environ else "Never"
RELEASE, SYSTEM = "tailrace", "tailrace-system"
SERVER = "demo"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

VALUES: dict[str, Any] = {
    "image": {"repository": IMAGE.rpartition(":")[0], "tag": IMAGE.rpartition(":")[2], "pullPolicy": PULL_POLICY},
    "settings": {"settleSeconds": 3, "shutdownSeconds": 30, "statusSeconds": 2}
    | {"leaseSeconds": 6, "leaseRenewSeconds": 2},
    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    "releaseFinalizers": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}},
}


def engine(*args: str, image: str = IMAGE, **fields: object) -> Document:
    """Return a container that runs the simulated model server of the image; what it does goes to its log."""
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1}
    flags = ["model-server", "--host", "0.0.0.0", "--model", MODEL, "--on-sigterm", "abort"]
    flags += ["--itl-ms", "40", "--ttft-base-ms", "10", "--max-num-seqs", "64", "--request-log", "/dev/stdout", *args]
    container: Document = {"name": "engine", "image": image, "imagePullPolicy": PULL_POLICY, "args": flags}
    container["readinessProbe"] = probe
    return container | {"securityContext": RESTRICTED} | fields


def server(*args: str, name: str = SERVER, container: Document | None = None, **spec: object) -> Document:
    """Return an InferenceServer of such engines; `spec` replaces fields of its spec. New pods come all at once."""
    template = {"spec": {"containers": [container or engine(*args)]}}
    usual = {"rollout": {"maxSurge": 2, "maxUnavailable": 0}, "capacity": 64}
    return inference_server(name, template, **usual | spec)


UNGATED, FRAGILE, SHORT = "ungated", "fragile", "short"
SHORT_DRAIN_SECONDS = 4


def _fragile() -> Document:
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "timeoutSeconds": 1}
    probe |= {"failureThreshold": 2, "terminationGracePeriodSeconds": 3}
    container = engine("--faults", "--model", FRAGILE, livenessProbe=probe)
    return server(name=FRAGILE, container=container, models=[{"name": FRAGILE}])


def _model(name: str, **drain: object) -> Document:
    return server("--model", name, name=name, models=[{"name": name}], drain={"settleSeconds": 1, **drain})


BESIDE = (
    _model(UNGATED, timeoutSeconds=30, gate="None"),
    _model(SHORT, timeoutSeconds=SHORT_DRAIN_SECONDS, shutdownSeconds=2),
    _fragile(),
)
"""InferenceServers of single tests: without a gate, with an engine that can hang, with a drain that ends soon."""
