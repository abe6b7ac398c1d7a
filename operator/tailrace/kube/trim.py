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
_POD_SPEC = ("nodeName", "hostNetwork", "terminationGracePeriodSeconds")
_CONTAINER = ("name", "ports", "lifecycle", "resources", "restartPolicy")
_POD_STATUS = ("phase", "podIP", "conditions", "containerStatuses", "initContainerStatuses")


def pod(document: Document) -> Document:
    """Keep of a pod what tells readiness, capacity and drain."""
    spec = document.get("spec") or {}
    containers = {part: _each(spec.get(part), _CONTAINER) for part in ("containers", "initContainers")}
    status = _only(document.get("status"), _POD_STATUS)
    return {"metadata": metadata(document), "spec": _only(spec, _POD_SPEC) | containers, "status": status}


def node(document: Document) -> Document:
    """Keep of a node its labels and taints."""
    return {"metadata": metadata(document), "spec": _only(document.get("spec"), ("taints",))}


def replica_set(document: Document) -> Document:
    """Keep of a ReplicaSet its revision and how many pods it should have."""
    return {"metadata": metadata(document), "spec": _only(document.get("spec"), ("replicas",))}


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


def _each(parts: list[Document] | None, fields: Iterable[str]) -> list[Document]:
    return [_only(part, fields) for part in parts or ()]


TRIMS: Final[Mapping[Resource, Callable[[Document], Document]]] = {
    objects.DEPLOYMENTS: whole,
    objects.REPLICA_SETS: replica_set,
    objects.PODS: pod,
    objects.NODES: node,
    objects.SERVERS: whole,
}
"""What is kept of each kind that is listed and watched. To trim twice changes nothing."""
