"""A pod's status from its containers' records: pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.kubelet.objects import Object, timestamp
from tests.cluster.kubelet.records import Record, Running, Terminated, Waiting


@dataclass(frozen=True)
class Network:
    """A pod's address and its node's."""

    pod: str
    host: str


@dataclass(frozen=True)
class View:
    """All that a status is made from; `ended` says that no container will run again."""

    initial: Sequence[Record]
    regular: Sequence[Record]
    network: Network | None
    started_at: float
    gates: Mapping[str, bool] = field(default_factory=dict)
    """Readiness gates by name, and whether each is open."""
    ended: bool = False


def build_status(view: View, before: Mapping[str, Any], now: float) -> Object:
    """Build the kubelet's part of a pod's status.

    `before` is the last status, for the times of conditions that stayed; `now` is in seconds since the epoch.
    """
    status: Object = {
        "phase": phase(view),
        "conditions": _with_times(_conditions(view), before, now),
        "startTime": timestamp(view.started_at),
        "containerStatuses": [record.as_object() for record in view.regular],
        "initContainerStatuses": [record.as_object() for record in view.initial],
    }
    if view.network:
        pod, host = view.network.pod, view.network.host
        status |= {"podIP": pod, "podIPs": [{"ip": pod}], "hostIP": host, "hostIPs": [{"ip": host}]}
    return status


def phase(view: View) -> str:
    """Return the pod's phase by the kubelet's rules."""
    initial = [record for record in view.initial if not record.sidecar]
    if view.ended:
        good = all(record.finished_well for record in view.regular) and not any(map(_failed, initial))
        return "Succeeded" if good else "Failed"
    if any(_never_ran(record) for record in view.regular) or not initialized(view):
        return "Pending"
    return "Running"


def _failed(record: Record) -> bool:
    return isinstance(record.state, Terminated) and record.state.exit_code != 0


def _never_ran(record: Record) -> bool:
    return isinstance(record.state, Waiting) and record.last is None and not record.restarts


def initialized(view: View) -> bool:
    """Tell whether init containers have finished well and native sidecars have started."""
    return all(record.started if record.sidecar else record.finished_well for record in view.initial) or any(
        isinstance(record.state, Running | Terminated) for record in view.regular
    )


def containers_ready(view: View) -> bool:
    """Tell whether every regular container and every native sidecar is ready."""
    members = [*view.regular, *(record for record in view.initial if record.sidecar)]
    return not view.ended and all(record.ready and record.running for record in members)


def _conditions(view: View) -> dict[str, tuple[bool, str]]:
    all_ready = containers_ready(view)
    missing = "PodCompleted" if view.ended else "ContainersNotReady"
    ready_reason = missing if not all_ready else "" if all(view.gates.values()) else "ReadinessGatesNotReady"
    return {
        "PodReadyToStartContainers": (view.network is not None and not view.ended, ""),
        "Initialized": (initialized(view), "" if initialized(view) else "ContainersNotInitialized"),
        "Ready": (not ready_reason, ready_reason),
        "ContainersReady": (all_ready, "" if all_ready else missing),
        "PodScheduled": (True, ""),
    }


def condition_is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Tell whether a status holds a condition that is True."""
    return any(one["type"] == kind and one["status"] == "True" for one in status.get("conditions") or ())


def _with_times(
    conditions: Mapping[str, tuple[bool, str]], before: Mapping[str, Any], now: float
) -> list[dict[str, Any]]:
    known = {one["type"]: one for one in _listed(before)}
    result = []
    for kind, (holds, reason) in conditions.items():
        value, old = "True" if holds else "False", known.get(kind, {})
        moment = old.get("lastTransitionTime") if old.get("status") == value else timestamp(now)
        result.append({"type": kind, "status": value, "reason": reason, "lastTransitionTime": moment})
    return result


def _listed(status: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return status.get("conditions") or ()


def as_patch(pod_uid: str, status: Object) -> Object:
    """Wrap a status as a strategic merge patch of exactly this pod; conditions of others stay, addresses do not."""
    replaced = {key: [*status[key], {"$patch": "replace"}] for key in ("podIPs", "hostIPs") if key in status}
    return {"metadata": {"uid": pod_uid}, "status": status | replaced}
