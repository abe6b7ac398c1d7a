"""Small readings of Kubernetes objects as plain dicts."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]
TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


def uid(pod: Mapping[str, Any]) -> str:
    """Return the object's uid."""
    return str(pod["metadata"]["uid"])


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Tell whether an init container is a native sidecar."""
    return container.get("restartPolicy") == "Always"


def is_deleting(pod: Mapping[str, Any]) -> bool:
    """Tell whether somebody asked for the pod's deletion."""
    return "deletionTimestamp" in pod["metadata"]


def is_terminal(pod: Mapping[str, Any]) -> bool:
    """Tell whether the pod's phase is final: its containers never run again."""
    return pod.get("status", {}).get("phase") in TERMINAL_PHASES


def pod_path(pod: Mapping[str, Any], subresource: str = "") -> str:
    """Return the API path of a pod or of one of its subresources (`/status`)."""
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}{subresource}"


def pod_folder(pod: Mapping[str, Any]) -> str:
    """Return the name of the pod's folder, the form that the real kubelet uses below /var/log/pods."""
    metadata = pod["metadata"]
    return f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"


def init_containers(pod: Mapping[str, Any]) -> list[Object]:
    """Return the init containers, native sidecars among them, in the order of their start."""
    return list(pod["spec"].get("initContainers") or [])


def containers(pod: Mapping[str, Any]) -> list[Object]:
    """Return the regular containers."""
    return list(pod["spec"]["containers"])


def by_name(items: Iterable[Object] | None) -> dict[str, Object]:
    """Index objects by their `name`."""
    return {item["name"]: item for item in items or ()}


def timestamp(seconds: float) -> str:
    """Format seconds since the epoch as the API does (`2026-01-31T10:00:00Z`)."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
