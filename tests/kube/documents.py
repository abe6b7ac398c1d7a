"""Small documents as the API server gives them."""

from typing import Any

from tailrace.api.inferenceserver import InferenceServer
from tailrace.kube.servers import Server, understand

Document = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"


def pod(name: str = "a", *, version: int = 1, server: str = "one", node: str = "n1", **changed: Any) -> Document:  # noqa: ANN401
    """Return a ready pod; `changed` goes into its metadata (deletionTimestamp ...), `status` into its status."""
    status = changed.pop("status", {})
    meta = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "labels": {"tailrace.dev/server": server},
        "finalizers": ["tailrace.dev/drain"],
        "creationTimestamp": CREATED,
    }
    told = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "main", "containerID": "c://1", "state": {"running": {}}}],
    }
    return {
        "metadata": meta | changed,
        "spec": {"nodeName": node, "containers": [{"name": "main"}]},
        "status": told | status,
    }


def server(name: str = "one", namespace: str = "ns", **spec: Any) -> Document:  # noqa: ANN401
    """Return an InferenceServer with a template unless `spec` says where it runs."""
    mode = {} if {"selector", "endpoints"} & spec.keys() else {"template": {"spec": {"containers": [{"name": "main"}]}}}
    return {
        "apiVersion": "inference.tailrace.dev/v1alpha1",
        "kind": "InferenceServer",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": CREATED,
        },
        "spec": {"models": [{"name": f"model-{name}"}], **mode, **spec},
    }


def newer(document: Document, version: int) -> Document:
    """Return the document at a later resourceVersion."""
    return document | {"metadata": document["metadata"] | {"resourceVersion": str(version)}}


def understood(document: Document) -> Server:
    """Return the server as the view keeps it."""
    found = understand(document, None)
    assert found is not None
    return found


def model(**spec: Any) -> InferenceServer:  # noqa: ANN401
    """Return an InferenceServer as its pydantic model."""
    return understood(server(**spec)).model
