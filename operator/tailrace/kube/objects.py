"""The kinds of objects that Tailrace reads and writes, and how to read what all objects have. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tailrace.api import names
from tailrace.kube.client import Document, Resource

SERVERS: Final = Resource(names.GROUP, names.VERSION, names.PLURAL)
PODS: Final = Resource("", "v1", "pods")
NODES: Final = Resource("", "v1", "nodes", namespaced=False)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets")
BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets")
EVENTS: Final = Resource("events.k8s.io", "v1", "events")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", namespaced=False)
ACCESS_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", namespaced=False)

MAX_DIGITS: Final = 20
"""Of a number that anything here can mean; Python refuses to read one of thousands."""

TERMINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})


def meta(document: Mapping[str, Any]) -> Document:
    """Return the metadata, empty when there is none."""
    return document.get("metadata") or {}


def uid(document: Mapping[str, Any]) -> str:
    """Return the uid, empty for what was never stored."""
    return str(meta(document).get("uid", ""))


def name(document: Mapping[str, Any]) -> str:
    """Return the name."""
    return str(meta(document).get("name", ""))


def namespace(document: Mapping[str, Any]) -> str:
    """Return the namespace, empty for what has none."""
    return str(meta(document).get("namespace", ""))


def key(document: Mapping[str, Any]) -> str:
    """Return ``namespace/name``."""
    return f"{namespace(document)}/{name(document)}"


def labels(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels."""
    return meta(document).get("labels") or {}


def annotations(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations."""
    return meta(document).get("annotations") or {}


def finalizers(document: Mapping[str, Any]) -> list[str]:
    """Return the finalizers, in order."""
    return list(meta(document).get("finalizers") or ())


def whole(text: str | None) -> int | None:
    """Return the whole number that the text is, None when it is none: people write annotations, of any length."""
    return int(text) if text and len(text) <= MAX_DIGITS and text.isdecimal() else None


def version(document: Mapping[str, Any]) -> int:
    """Return the resourceVersion as a number, 0 when it is none: then nothing can be said about order."""
    text = str(meta(document).get("resourceVersion", ""))
    return whole(text) or 0


def deleting(document: Mapping[str, Any]) -> bool:
    """Whether deletion has begun."""
    return bool(meta(document).get("deletionTimestamp"))


def server_key(document: Mapping[str, Any]) -> str | None:
    """Return ``namespace/name`` of the InferenceServer that the label names, None without the label."""
    server = labels(document).get(names.LABEL_SERVER)
    return f"{namespace(document)}/{server}" if server else None


def controller(document: Mapping[str, Any]) -> Document | None:
    """Return the owner reference of the controller, None when nobody controls the object."""
    return next((ref for ref in meta(document).get("ownerReferences") or () if ref.get("controller")), None)


def condition(document: Mapping[str, Any], kind: str) -> Document | None:
    """Return the condition of that type from the status, None when it is not there."""
    conditions: Iterable[Document] = (document.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), None)


def seconds(timestamp: str | None) -> float:
    """Return a timestamp of the API server as seconds since the epoch, 0.0 for none."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0


def timestamp(moment: float) -> str:
    """Return seconds since the epoch as the API server writes a time."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: float) -> str:
    """Return seconds since the epoch as the API server writes a time with microseconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
