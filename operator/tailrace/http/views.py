"""What the admin port answers about endpoints and drains, as JSON documents. Pure."""

from __future__ import annotations

from tailrace.core.model import (
    Candidate,
    DrainStatus,
    EndpointStatus,
    Explanation,
    PoolQuality,
    Reading,
    Request,
    RouterStatus,
    Standing,
)


def drain_view(status: DrainStatus) -> dict[str, object]:
    """Return how a drain stands: what gates and people read."""
    return {
        "uid": status.uid,
        "state": status.state.value,
        "inFlight": status.in_flight,
        "safe_to_delete": status.safe_to_delete,
        "deadline": status.deadline,
        "reason": status.reason.value if status.reason is not None else None,
        "waitingFor": list(status.waiting_for),
    }


def endpoint_view(status: EndpointStatus) -> dict[str, object]:
    """Return one endpoint; what its engine says is null while it is not known."""
    told = status.reading or Reading()
    return {
        "uid": status.uid,
        "server": status.server,
        "name": status.name,
        "address": status.address,
        "node": status.node,
        "state": status.state.value,
        "inFlight": status.in_flight,
        "unknown": status.unknown,
        "capacity": status.capacity,
        "gpuMemoryGB": status.gpu_memory_gb,
        "engineRunning": told.running,
        "engineWaiting": told.waiting,
        "kvUsage": told.kv_usage,
        "connectFailures": status.unreached,
        "reason": status.reason,
    }


def pool_view(pool: PoolQuality) -> dict[str, object]:
    """Return how evenly one pool is used; null while too little goes on to tell."""
    return {
        "pool": pool.pool,
        "strategy": pool.strategy,
        "quality": None if pool.grade is None else pool.grade.value,
        "load": None if pool.load is None else pool.load._asdict(),
        "latency": None if pool.latency is None else pool.latency._asdict(),
    }


def router_view(status: RouterStatus) -> dict[str, object]:
    """Return every endpoint and the figures of this replica."""
    return {
        "inFlight": status.in_flight,
        "waiting": dict(status.waiting),
        "drains": status.drains,
        "outcomes": dict(status.outcomes),
        "pools": [pool_view(pool) for pool in status.pools],
        "endpoints": [endpoint_view(endpoint) for endpoint in status.endpoints],
    }


def explanation_view(request: Request, explanation: Explanation) -> dict[str, object]:
    """Return what a pick would make of a request, the endpoint that it would return first."""
    refusal = explanation.refusal
    picked = [each.uid for each in explanation.candidates if each.standing is Standing.PICKED]
    return {
        "model": request.model,
        "tokens": request.tokens,
        "pool": explanation.pool,
        "strategy": explanation.strategy,
        "picked": picked[0] if picked else None,
        "refusal": None if refusal is None else {"code": refusal.code.value, "message": refusal.message},
        "waiting": explanation.waiting,
        "wouldWait": explanation.would_wait,
        "endpointsOfOtherModels": explanation.elsewhere,
        "candidates": [_candidate_view(each) for each in explanation.candidates],
    }


def _candidate_view(candidate: Candidate) -> dict[str, object]:
    return {
        "uid": candidate.uid,
        "name": candidate.name,
        "address": candidate.address,
        "standing": candidate.standing.value,
        "state": candidate.state.value,
        "inFlight": candidate.in_flight,
        "slots": candidate.limit,
        "against": list(candidate.against),
        "parts": dict(candidate.parts),
        "connectFailures": candidate.unreached,
    }


def find_uid(status: RouterStatus, pod: str) -> str | None:
    """Return the uid of the endpoint called ``name`` or ``namespace/name``; None when there is no, or no one, such."""
    namespace, _, name = pod.rpartition("/")
    found = [e.uid for e in status.endpoints if e.name == name and namespace in ("", namespace_of(e))]
    return found[0] if len(found) == 1 else None


def namespace_of(status: EndpointStatus) -> str:
    """Return the namespace of an endpoint: that of its server."""
    return status.server.partition("/")[0]
