"""What the cache keeps of an object: what somebody here reads, and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import Document, Resource

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "ownerReferences",
)
_KEPT_ANNOTATIONS = (f"{names.PREFIX}/", "controller.kubernetes.io/", "deployment.kubernetes.io/")
_POD_SPEC = ("nodeName", "hostNetwork", "terminationGracePeriodSeconds", "resourceClaims")
_POD_STATUS = ("phase", "podIP")
_CONTAINER = ("name", "lifecycle", "resources", "restartPolicy")
_CONTAINERS = {"containers": _CONTAINER, "initContainers": _CONTAINER}
_CONTAINER_STATUSES = {
    "containerStatuses": ("name", "containerID", "state"),
    "initContainerStatuses": ("name", "state"),
}
_CONDITION = ("type", "status", "reason", "message")
_CONDITIONS = ("Ready", "PodScheduled", "DisruptionTarget")


def pod(document: Document) -> Document:
    """Keep of a pod what tells readiness, capacity and drain."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    return {
        "metadata": metadata(document),
        "spec": _only(spec, _POD_SPEC) | _each(spec, _CONTAINERS),
        "status": _only(status, _POD_STATUS) | _each(status, _CONTAINER_STATUSES) | {"conditions": _told(status)},
    }


def node(document: Document) -> Document:
    """Keep of a node its labels and taints."""
    return {"metadata": metadata(document), "spec": _only(document.get("spec"), ("taints",))}


def replica_set(document: Document) -> Document:
    """Keep of a ReplicaSet its revision and how many pods it should have."""
    return {"metadata": metadata(document), "spec": _only(document.get("spec"), ("replicas",))}


def budget(document: Document) -> Document:
    """Keep of a PodDisruptionBudget what is asked for; its status changes with every pod."""
    return {"metadata": metadata(document), "spec": document.get("spec") or {}}


def whole(document: Document) -> Document:
    """Keep everything but the record of who wrote which field."""
    meta = {field: value for field, value in (document.get("metadata") or {}).items() if field != "managedFields"}
    return document | {"metadata": meta}


def metadata(document: Document) -> Document:
    """Keep identity, labels, deletion and the annotations that are read here."""
    meta = document.get("metadata") or {}
    kept = {key: text for key, text in (meta.get("annotations") or {}).items() if key.startswith(_KEPT_ANNOTATIONS)}
    return _only(meta, _METADATA) | {"annotations": kept}


def _only(part: Document | None, fields: Iterable[str]) -> Document:
    return {field: part[field] for field in fields if field in part} if part else {}


def _each(part: Document, lists: Mapping[str, Iterable[str]]) -> Document:
    """Keep these lists of a part, and of what is in them these fields."""
    return {name: [_only(one, fields) for one in part.get(name) or ()] for name, fields in lists.items()}


def _told(status: Document) -> list[Document]:
    """Keep the conditions that somebody asks for, without their times."""
    return [_only(one, _CONDITION) for one in status.get("conditions") or () if one.get("type") in _CONDITIONS]


TRIMS: Final[Mapping[Resource, Callable[[Document], Document]]] = {
    objects.DEPLOYMENTS: whole,
    objects.BUDGETS: budget,
    objects.REPLICA_SETS: replica_set,
    objects.PODS: pod,
    objects.NODES: node,
    objects.SERVERS: whole,
}
"""What is kept of each kind that is listed and watched. To trim twice changes nothing."""
