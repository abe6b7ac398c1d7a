"""Why no endpoint was chosen, in words that say what there is and what would be needed."""

from __future__ import annotations

from tailrace.core.model import Refusal, RefusalCode, Request
from tailrace.core.registry import Target

RETRY_NOT_READY = 5
"""Seconds after which a client may ask again when nothing is ready: pods become ready in seconds to minutes."""

NOT_SYNCED = Refusal(
    RefusalCode.NOT_SYNCED, "this replica has not seen a whole list of InferenceServers yet", RETRY_NOT_READY
)

SHUTTING_DOWN = Refusal(RefusalCode.SHUTTING_DOWN, "this replica is stopping; ask another", 1)


def refusal(target: Target, request: Request, now: float) -> Refusal:
    """Say why the pool has no endpoint for the request now: nothing ready, nothing that qualifies, or all full."""
    pool = target.pool
    if next(pool.qualified(0, avoid=request.avoid, subset=request.subset), None) is None:
        if request.subset is not None and next(pool.qualified(0, avoid=request.avoid), None) is not None:
            text = f"no endpoint of the model {request.model!r} that the gateway allows is ready"
            return Refusal(RefusalCode.NO_ENDPOINTS, text, RETRY_NOT_READY)
        other = "other " if request.avoid else ""
        return Refusal(
            RefusalCode.NO_ENDPOINTS, f"no {other}endpoint of the model {request.model!r} is ready", RETRY_NOT_READY
        )
    if next(pool.qualified(request.tokens, target.adapter, request.avoid, request.subset), None) is None:
        return Refusal(RefusalCode.NOT_QUALIFIED, _what_is_needed(target, request), RETRY_NOT_READY)
    if pool.settings.hard_sessions and _has_room(target, request):
        text = "the endpoint of this session is at capacity, and hard sessions go nowhere else"
        return Refusal(RefusalCode.SATURATED, text, pool.retry_after(now))
    which = "" if request.subset is None else " that the gateway allows"
    text = f"every endpoint of the model {request.model!r}{which} is at capacity"
    return Refusal(RefusalCode.SATURATED, text, pool.retry_after(now))


def behind(target: Target, request: Request, waiting: int, now: float) -> Refusal:
    """Say that so many wait for an endpoint already."""
    who = "1 request waits" if waiting == 1 else f"{waiting} requests wait"
    text = f"{who} for an endpoint of the model {request.model!r} already"
    return Refusal(RefusalCode.SATURATED, text, target.pool.retry_after(now, waiting))


def waited_out(target: Target, request: Request, waiting: int, now: float) -> Refusal:
    """Say why a request that has waited its time gets none; ``waiting`` others still do."""
    why = refusal(target, request, now)
    if why.code is not RefusalCode.SATURATED:
        return why
    seconds = target.pool.settings.queue_seconds
    text = f"no endpoint of the model {request.model!r} had a free slot for the request within {seconds:g} s"
    return Refusal(RefusalCode.WAITED_OUT, text, target.pool.retry_after(now, waiting))


def _has_room(target: Target, request: Request) -> bool:
    qualified = target.pool.qualified(request.tokens, target.adapter, request.avoid, request.subset)
    return any(endpoint.available for endpoint in qualified)


def _what_is_needed(target: Target, request: Request) -> str:
    pool, settings = target.pool, target.pool.settings
    if next(pool.qualified(request.tokens, avoid=request.avoid, subset=request.subset), None) is None:
        return (
            f"a request of about {request.tokens} tokens is above {settings.long_prompt_tokens} and needs an endpoint "
            f"with {settings.long_prompt_min_gpu_memory_gb} GB of GPU memory; none that is ready has it"
        )
    return f"no ready endpoint that could take the request has the adapter {target.adapter!r} loaded"
