"""Why a request would go where: the candidates, what speaks against each, and how those that are left compare. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from tailrace.core.endpoint import Endpoint
from tailrace.core.enginescores import STEPS_PER_POINT, kv_seconds
from tailrace.core.estimates import STEPS_PER_SECOND
from tailrace.core.figures import is_unknown, load, sent_since
from tailrace.core.history import History
from tailrace.core.meter import UNMETERED
from tailrace.core.model import (
    Candidate,
    EndpointSpec,
    EndpointState,
    Explanation,
    Reading,
    Refusal,
    RefusalCode,
    Request,
    Standing,
)
from tailrace.core.nearness import step_of
from tailrace.core.pool import Foreseen, Pool
from tailrace.core.prefill import Prefills
from tailrace.core.registry import Target
from tailrace.core.ties import Ties

Parts = dict[str, float]
"""What a score is made of, by name; ``score`` is the figure that is compared, the least wins unless it is a weight."""

Describe = Callable[[Pool, Endpoint, Request, float], Parts]


def explain(
    target: Target,
    request: Request,
    foreseen: Foreseen,
    refusal: Refusal | None,
    *,
    specs: Mapping[str, EndpointSpec],
    now: float,
    waiting: int,
) -> Explanation:
    """Return in values what a pick would make of the request now; ``refusal`` is why it would pick nobody.

    So many are ``waiting`` in the pool.
    """
    pool = target.pool
    able = {*foreseen.compared, *foreseen.others}
    out = [endpoint for endpoint in pool.endpoints.values() if endpoint not in able]

    def candidate(endpoint: Endpoint, standing: Standing, against: tuple[str, ...] = ()) -> Candidate:
        return Candidate(
            uid=endpoint.uid,
            name=specs[endpoint.uid].name,
            address=endpoint.address,
            standing=standing,
            state=endpoint.state,
            in_flight=endpoint.in_flight,
            limit=endpoint.limit,
            against=against,
            parts=_describe(pool, endpoint, request, now),
            unreached=endpoint.unreached,
        )

    first = Standing.PICKED if refusal is None else Standing.COMPARED
    candidates = [candidate(endpoint, first) for endpoint in foreseen.compared[:1]]
    candidates += [candidate(endpoint, Standing.COMPARED) for endpoint in foreseen.compared[1:]]
    candidates += [candidate(endpoint, Standing.ABLE) for endpoint in foreseen.others]
    candidates += [
        candidate(each, Standing.FILTERED, tuple(_against(target, each, request, specs[each.uid], foreseen)))
        for each in out
    ]
    return Explanation(
        refusal=refusal,
        pool=target.pool_key,
        strategy=pool.settings.strategy,
        candidates=tuple(candidates),
        elsewhere=len(specs) - len(pool.endpoints),
        waiting=waiting,
        would_wait=waiting < pool.settings.queue_size and _would_wait(pool, foreseen, refusal, now),
    )


def _would_wait(pool: Pool, foreseen: Foreseen, refusal: Refusal | None, now: float) -> bool:
    if refusal is not None:
        return pool.settings.queue_size > 0 and refusal.code is RefusalCode.SATURATED
    return pool.holds(foreseen.compared, now) and all(each.meter.pending for each in foreseen.others)


def _against(
    target: Target, endpoint: Endpoint, request: Request, spec: EndpointSpec, foreseen: Foreseen
) -> Iterator[str]:
    """Yield every filter that keeps the endpoint from the request."""
    settings = target.pool.settings
    if endpoint.state is not EndpointState.READY:
        yield f"it is {endpoint.state.value}" + (f": {spec.reason}" if spec.reason else "")
    if endpoint.in_flight >= endpoint.limit:
        yield f"no free slot: {endpoint.in_flight} of {endpoint.limit} are taken"
    if target.pool.is_long(request.tokens) and endpoint.gpu_memory_gb < settings.long_prompt_min_gpu_memory_gb:
        has = "unknown" if spec.gpu_memory_gb is None else f"{endpoint.gpu_memory_gb} GB"
        needs = f"more than {settings.long_prompt_tokens} tokens need {settings.long_prompt_min_gpu_memory_gb}"
        yield f"GPU memory {has}; {needs} GB"
    if target.adapter is not None and target.adapter not in endpoint.adapters:
        yield f"the adapter {target.adapter!r} is not loaded"
    if endpoint.backup and not all(each.backup for each in (*foreseen.compared, *foreseen.others)):
        yield "it is a backup, and others are available"
    if request.subset is not None and endpoint.address not in request.subset:
        yield "the gateway does not allow it"
    if endpoint.uid in request.avoid:
        yield "an earlier attempt was there"


def _describe(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> Parts:
    parts = DESCRIBED.get(pool.settings.strategy, _load_ratio)(pool, endpoint, request, now)
    metered = endpoint.meter is not UNMETERED
    return parts | ({"tokensOutstanding": float(endpoint.meter.tokens)} if metered else {})


def _load_ratio(_: Pool, endpoint: Endpoint, __: Request, ___: float) -> Parts:
    return {"score": endpoint.in_flight / endpoint.capacity}


def _in_flight(_: Pool, endpoint: Endpoint, __: Request, ___: float) -> Parts:
    return {"score": float(endpoint.in_flight)}


def _in_turn(_: Pool, __: Endpoint, ___: Request, ____: float) -> Parts:
    return {}


def _tokens(_: Pool, endpoint: Endpoint, __: Request, ___: float) -> Parts:
    return {"score": float(endpoint.meter.tokens)}


def _response_time(_: Pool, endpoint: Endpoint, __: Request, ___: float) -> Parts:
    meter = endpoint.meter
    seen = {"meanSeconds": meter.mean.value, "p95Seconds": meter.p95.value}
    return {name: value for name, value in seen.items() if value is not None}


def _finish(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> Parts:
    history, meter = cast("History", pool.notes), endpoint.meter
    return {
        "score": _seconds(pool, endpoint, request, now),
        "workSeconds": meter.seconds,
        "requestSeconds": history.predict(*history.lengths.of(request)),
        "slowness": meter.slowness_at(now),
    }


def _first_token(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> Parts:
    notes = cast("Prefills", pool.notes)
    speed = notes.speed(endpoint, now)
    return {
        "score": _seconds(pool, endpoint, request, now),
        "pendingTokens": endpoint.meter.left(speed, now),
        "uncachedTokens": float(notes.uncached(endpoint, request, notes.lengths.of(request)[0])),
        "prefillTokensPerSecond": speed,
        "speedGuessed": float(endpoint.meter.prefill.guessed),
        "loadRatio": endpoint.in_flight / endpoint.capacity,
        "kvSeconds": kv_seconds(endpoint, pool.settings.max_kv_usage),
    }


def _free_slots(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> Parts:
    parts = {"score": float(_key(pool, endpoint, request, now)), "sentSince": float(sent_since(endpoint))}
    reading = endpoint.reading or Reading()
    told = {"slots": reading.slots, "running": reading.running, "waiting": reading.waiting}
    return parts | {name: float(value) for name, value in told.items() if value is not None}


def _points(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> Parts:
    seen = load(endpoint)
    return {
        "score": _key(pool, endpoint, request, now) / STEPS_PER_POINT,
        "gpu": seen.gpu,
        "memory": seen.memory,
        "queue": seen.queue,
        "slowness": endpoint.meter.slowness_at(now),
        "unknown": float(is_unknown(endpoint)),
    }


def _nearness(pool: Pool, endpoint: Endpoint, _: Request, __: float) -> Parts:
    ratio = endpoint.in_flight / endpoint.capacity
    step = step_of(endpoint, pool.settings.spill_percent)
    return {"score": step + ratio, "distance": float(endpoint.distance), "loadRatio": ratio}


def _seconds(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> float:
    """Return what the strategy itself makes of the endpoint, as the seconds that it compares."""
    return _key(pool, endpoint, request, now) / STEPS_PER_SECOND


def _key(pool: Pool, endpoint: Endpoint, request: Request, now: float) -> int:
    """Return what the strategy compares, without what breaks ties."""
    score = pool.policy.score
    return Ties.key(score(request, now)(endpoint)) if score is not None else 0


DESCRIBED: dict[str, Describe] = {
    "LeastRequests": _in_flight,
    "RoundRobin": _in_turn,
    "WeightedRoundRobin": _in_turn,
    "LeastTokens": _tokens,
    "WeightedResponseTime": _response_time,
    "ShortestExpectedCompletion": _finish,
    "LeastEstimatedTTFT": _first_token,
    "SlotBased": _free_slots,
    "DynamicScore": _points,
    "Locality": _nearness,
}
"""What each strategy compares; where nothing is said here it is the load ratio."""
