"""The PodDisruptionBudget of an InferenceServer that asks for one: what it should be, and what has to change. Pure."""

from __future__ import annotations

from typing import Final

from tailrace.api import names
from tailrace.api.inferenceserver import InferenceServer
from tailrace.kube import objects, workload
from tailrace.kube.client import Document

FIELDS: Final = ("maxUnavailable", "minAvailable", "selector", "unhealthyPodEvictionPolicy")
"""What of the spec is ours."""


def budget(server: InferenceServer) -> Document | None:
    """Return the whole budget, None when the server asks for none."""
    asked = server.spec.disruption_budget
    if asked is None:
        return None
    meta = server.metadata
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": workload.own_labels(server),
            "ownerReferences": [workload.owner(server)],
        },
        "spec": asked.document()
        | {
            "selector": {"matchLabels": {names.LABEL_SERVER: meta.name}},
            # A pod that is not ready holds no requests: it must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def change(live: Document, wanted: Document) -> list[Document]:
    """Return the JSON patch that makes the budget what it should be, empty when it is; it fails on another one.

    The spec is replaced as a whole, so that one bound goes when the other comes.
    """
    present = live.get("spec") or {}
    if all(present.get(field) == wanted["spec"].get(field) for field in FIELDS):
        return []
    return [
        {"op": "test", "path": "/metadata/uid", "value": objects.uid(live)},
        {"op": "add", "path": "/spec", "value": wanted["spec"]},
    ]
