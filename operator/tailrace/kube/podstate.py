"""A pod as the API server tells it -> an endpoint as the core needs it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailrace.api import names
from tailrace.api.inferenceserver import InferenceServer
from tailrace.core.model import Deletion, DrainReason, DrainSpec, EndpointSpec
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.injection import ANNOTATION_PORT

KILL_MARGIN_SECONDS = 5.0
"""Between the drain's deadline and SIGKILL, beside the model server's own shutdown time."""
ZONE_LABEL = "topology.kubernetes.io/zone"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
FALLBACK_PORT = 8000


@dataclass(frozen=True, slots=True)
class Node:
    """What matters of a node. ``lost`` says that nothing can run there: it has vanished, or is out of service."""

    labels: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False

    @property
    def zone(self) -> str:
        """The zone that the node is in, empty when it is not known."""
        return self.labels.get(ZONE_LABEL, "")


@dataclass(frozen=True, slots=True)
class Owner:
    """What a pod's endpoint takes from its InferenceServer."""

    key: str
    port: int = FALLBACK_PORT
    capacity: int = 1
    gpu_memory_gb: int | None = None
    drain: DrainSpec = field(default_factory=DrainSpec)
    gpu_tflops: int | None = None
    weight: int = 1
    backup: bool = False


def node_facts(node: Document) -> Node:
    """Read a node."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return Node(objects.labels(node), lost=any(taint.get("key") == OUT_OF_SERVICE for taint in taints))


def owner_of(server: InferenceServer) -> Owner:
    """Read what the endpoints of this server share."""
    spec = server.spec
    return Owner(
        key=f"{server.metadata.namespace}/{server.metadata.name}",
        port=spec.port,
        capacity=spec.capacity,
        gpu_memory_gb=spec.gpu_memory_gb,
        gpu_tflops=spec.gpu_tflops,
        weight=spec.weight,
        backup=spec.backup,
        drain=DrainSpec(spec.drain.timeout_seconds, spec.drain.settle_seconds, spec.drain.shutdown_seconds),
    )


def lost_owner(pod: Document) -> Owner:
    """Stand in for an InferenceServer that is gone: the pod gets no new request, but may still have to drain."""
    port = objects.annotations(pod).get(ANNOTATION_PORT, "")
    return Owner(key=objects.server_key(pod) or "", port=objects.whole(port) or FALLBACK_PORT)


def observe(
    pod: Document,
    *,
    owner: Owner,
    node: Node | None = None,
    gpu_memory_gb: int | None = None,
    gpu_tflops: int | None = None,
    before: Deletion | None = None,
    why: DrainReason = DrainReason.DELETE,
) -> EndpointSpec:
    """Return the endpoint that this pod is.

    ``node`` is None while nothing is known of it; ``gpu_memory_gb`` and ``gpu_tflops`` are what its labels tell.
    ``before`` is the deletion first seen of this uid: it stands, because the kubelet's last delete shortens the grace
    period to 0. ``why`` names the reason of a first deletion.
    """
    reason = unready_reason(pod)
    drain = drain_spec(pod, owner.drain)
    return EndpointSpec(
        uid=objects.uid(pod),
        server=owner.key,
        name=objects.name(pod),
        address=address(pod, owner.port),
        capacity=owner.capacity,
        ready=not reason,
        gpu_memory_gb=owner.gpu_memory_gb or gpu_memory_gb,
        gpu_tflops=owner.gpu_tflops or gpu_tflops,
        weight=owner.weight,
        backup=owner.backup,
        node=_node_name(pod),
        zone=node.zone if node is not None else "",
        reason=reason,
        version=objects.version(pod),
        incarnation=incarnation(pod),
        created_at=objects.seconds(objects.meta(pod).get("creationTimestamp")),
        deletion=before or deletion(pod, drain, why),
        cordon=cordon(pod),
        gate_mark=objects.annotations(pod).get(names.ANNOTATION_GATE_MARK),
        ended=ended(pod, node),
        drain=drain,
    )


def address(pod: Document, port: int) -> str:
    """Return ``ip:port``, empty while the pod has no address."""
    ip = str(_status(pod).get("podIP") or "")
    if not ip:
        return ""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def unready_reason(pod: Document) -> str:
    """Return why the pod takes no requests, in words for people; empty when it is ready."""
    phase = str(_status(pod).get("phase") or "")
    if objects.deleting(pod):
        return "is being deleted"
    if phase in objects.TERMINAL_PHASES:
        return f"has ended: {phase}"
    if not _status(pod).get("podIP"):
        return _waiting(pod) or "has no address yet"
    ready = objects.condition(pod, "Ready")
    if ready is None or ready.get("status") != "True":
        return _waiting(pod) or _words(ready) or "is not ready"
    return ""


def deletion(pod: Document, drain: DrainSpec, why: DrainReason) -> Deletion | None:
    """Return the deletion that the API server has recorded, None without one."""
    if not objects.deleting(pod):
        return None
    meta = objects.meta(pod)
    grace = float(meta.get("deletionGracePeriodSeconds") or 0)
    started_at = objects.seconds(meta["deletionTimestamp"]) - grace
    allowed = min(drain.timeout, grace - drain.shutdown - KILL_MARGIN_SECONDS)
    reason = DrainReason.EVICTION if _disrupted(pod) else why
    return Deletion(started_at, started_at + max(0.0, allowed), reason)


def ended(pod: Document, node: Node | None) -> bool:
    """Whether nothing can run here any more."""
    if _status(pod).get("phase") in objects.TERMINAL_PHASES or (node is not None and node.lost):
        return True
    return objects.deleting(pod) and (not _node_name(pod) or _all_terminated(pod))


def incarnation(pod: Document) -> str:
    """Return what changes when a container of the pod starts anew."""
    statuses = _status(pod).get("containerStatuses") or ()
    return ",".join(str(status.get("containerID") or "") for status in statuses)


def cordon(pod: Document) -> int | None:
    """Return the generation of a manual drain; one that a person set by hand has no number and is the first."""
    text = objects.annotations(pod).get(names.ANNOTATION_DRAINING)
    if text is None:
        return None
    generation = objects.whole(text)
    return 1 if generation is None else generation


def drain_spec(pod: Document, default: DrainSpec) -> DrainSpec:
    """Return how the pod drains: its own annotations first, then what its server says."""
    return DrainSpec(
        timeout=_annotated(pod, names.ANNOTATION_DRAIN_TIMEOUT, default.timeout),
        settle=_annotated(pod, names.ANNOTATION_DRAIN_SETTLE, default.settle),
        shutdown=_annotated(pod, names.ANNOTATION_DRAIN_SHUTDOWN, default.shutdown),
    )


def _annotated(pod: Document, annotation: str, default: float) -> float:
    said = objects.whole(objects.annotations(pod).get(annotation))
    return float(default if said is None else said)


def _status(pod: Document) -> dict[str, Any]:
    return pod.get("status") or {}


def _containers(pod: Document) -> list[Document]:
    return list((pod.get("spec") or {}).get("containers") or ())


def _node_name(pod: Document) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def _disrupted(pod: Document) -> bool:
    target = objects.condition(pod, "DisruptionTarget")
    return target is not None and target.get("status") == "True"


def _all_terminated(pod: Document) -> bool:
    statuses = _status(pod).get("containerStatuses") or ()
    terminated = [status for status in statuses if (status.get("state") or {}).get("terminated")]
    return bool(statuses) and len(terminated) == len(statuses) >= len(_containers(pod))


def _waiting(pod: Document) -> str:
    status = _status(pod)
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return _words({**waiting, "reason": f"{container.get('name')}: {waiting['reason']}"})
    scheduled = objects.condition(pod, "PodScheduled")
    return _words(scheduled) if scheduled and scheduled.get("status") == "False" else ""


def _words(condition: Document | None) -> str:
    words = [str((condition or {}).get(part) or "") for part in ("reason", "message")]
    return ": ".join(word for word in words if word)[:512]
