"""The status of an InferenceServer as a document. Pure."""

from __future__ import annotations

from typing import Any, Final

from tailrace.api import names
from tailrace.api.inferenceserver import MAX_ENDPOINTS
from tailrace.core.model import EndpointSpec, EndpointState
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.conditions import MAX_MESSAGE, Facts, Verdict, verdicts

_ORDER: Final = (EndpointState.DRAINING, EndpointState.STARTING, EndpointState.READY, EndpointState.DRAINED)
_REASON_LENGTH: Final = 512
_COUNTERS: Final = frozenset({"inFlight", "quality"})
"""What is written now and then: nothing waits for it."""


def build(facts: Facts, before: Document) -> Document:
    """Return the whole status; ``before`` is the stored one, whose transition times are kept."""
    meta = facts.server.model.metadata
    here = facts.count(EndpointState.READY, EndpointState.STARTING)
    able = facts.count(EndpointState.READY)
    return {
        "observedGeneration": meta.generation,
        "conditions": stamped(verdicts(facts), before, generation=meta.generation, now=facts.now),
        "replicas": here,
        "readyReplicas": able,
        "drainingReplicas": facts.count(EndpointState.DRAINING, EndpointState.DRAINED),
        "ready": f"{able}/{max(here, wanted(facts))}",
        "inFlight": sum(facts.reports[spec.uid].in_flight for spec in facts.endpoints if spec.uid in facts.reports),
        "capacity": sum(spec.capacity for spec in facts.endpoints if facts.state(spec) is EndpointState.READY),
        "quality": facts.grade,
        "selector": f"{names.LABEL_SERVER}={meta.name}",
        "endpoints": endpoints(facts),
        "drains": list(facts.drains),
    }


def wanted(facts: Facts) -> int:
    """Return how many endpoints there should be: of a template its replicas, else what there is."""
    spec = facts.server.model.spec
    return spec.replicas if spec.template is not None else 0


def stamped(found: list[Verdict], before: Document, *, generation: int, now: float) -> list[Document]:
    """Return the conditions with their times; that of the last transition moves only when the status changes."""
    known = {condition.get("type"): condition for condition in before.get("conditions") or ()}
    return [_stamped(verdict, known.get(verdict.type), generation, now) for verdict in found]


def _stamped(verdict: Verdict, before: Document | None, generation: int, now: float) -> Document:
    status = "True" if verdict.status else "False"
    same = before is not None and before.get("status") == status
    return {
        "type": verdict.type,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and same else objects.timestamp(now),
        "reason": verdict.reason,
        "message": verdict.message[:MAX_MESSAGE],
    }


def endpoints(facts: Facts) -> list[Document]:
    """Return the endpoints, those that something happens to first, at most as many as the status may hold."""
    present = [spec for spec in facts.endpoints if facts.state(spec) in _ORDER]
    present.sort(key=lambda spec: (_ORDER.index(facts.state(spec)), spec.created_at, spec.name))
    return [_endpoint(spec, facts) for spec in present[:MAX_ENDPOINTS]]


def _endpoint(spec: EndpointSpec, facts: Facts) -> Document:
    report = facts.reports.get(spec.uid)
    told: dict[str, Any] = {
        "pod": None if spec.uid.startswith(f"{spec.server}/") else spec.name,
        "address": spec.address,
        "node": spec.node or None,
        "gpuMemoryGB": spec.gpu_memory_gb,
        "state": facts.state(spec).value.capitalize(),
        "inFlight": report.in_flight if report else 0,
        "capacity": spec.capacity,
        "reason": (spec.reason or facts.memory.get(spec.uid, ""))[:_REASON_LENGTH],
    }
    return {field: value for field, value in told.items() if value is not None}


def differs(status: Document, stored: Document) -> tuple[bool, bool]:
    """Return whether the status says anything new, and whether it is more than counters: that is told at once."""
    return any(stored.get(field) != value for field, value in status.items()), _steady(status) != _steady(stored)


def _steady(status: Document) -> Document:
    listed = [{k: v for k, v in endpoint.items() if k != "inFlight"} for endpoint in status.get("endpoints") or ()]
    return {field: value for field, value in status.items() if field not in _COUNTERS} | {"endpoints": listed}
