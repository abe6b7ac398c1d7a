"""The table of strategies. Each name stands for a way to make a pool's policy of its settings.

docs/strategies.md says of each where it comes from, when to use it and what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from tailrace.core.endpoint import Endpoint
from tailrace.core.enginescores import (
    ByFreeSlots,
    ByPoints,
    Weights,
    score_class,
    score_free_slots,
    score_points,
)
from tailrace.core.estimates import ByWork, ResponseTimes, rate_class, score_finish
from tailrace.core.figures import Figures, is_unknown
from tailrace.core.history import History
from tailrace.core.meter import Notes
from tailrace.core.model import Needs, PoolSettings, Request
from tailrace.core.nearness import distance_of, score_nearness
from tailrace.core.order import BY_LOAD_RATIO, Order
from tailrace.core.policy import Draw, Make, Policy, Score
from tailrace.core.prefill import ByPending, Prefills, has_backlog, score_first_token
from tailrace.core.sessions import Sessions
from tailrace.core.sources.classes import ClassSource
from tailrace.core.sources.holders import HolderSource
from tailrace.core.sources.least import LeastSource
from tailrace.core.sources.ring import RingSource
from tailrace.core.sources.rotation import RotationSource
from tailrace.core.sources.sample import SampleSource
from tailrace.core.sources.session import SessionSource
from tailrace.core.sources.weighted import WeightedRotationSource
from tailrace.core.ties import TiedOrder, Ties

SPEEDS_COMPARED = 6
"""How many endpoints are compared, the best of each speed first: a fleet has two or three, noise adds as many."""

DISTANCES = 3
"""On the same node, in the same zone, elsewhere."""

BASELINE_TFLOPS, BASELINE_GB = 65, 16
"""A T4: what an endpoint counts as whose hardware is not known."""


class ByInFlight(Order):
    """The fewest in flight win, then the rank."""

    def key(self, endpoint: Endpoint) -> int:
        """Return how many are in flight."""
        return endpoint.in_flight


class ByTokens(TiedOrder):
    """The fewest tokens outstanding."""

    def key(self, endpoint: Endpoint) -> int:
        """Return the tokens."""
        return endpoint.meter.tokens


def by_capacity(endpoint: Endpoint) -> int:
    """Weight: the requests that it takes at once."""
    return endpoint.capacity


def by_weight(endpoint: Endpoint) -> int:
    """Weight: as somebody has set it."""
    return endpoint.weight


def by_hardware(endpoint: Endpoint) -> int:
    """Weight: TFLOPS times GPU memory, each of all GPUs; only ratios count, so no baseline is divided by."""
    return (endpoint.gpu_tflops or BASELINE_TFLOPS) * (endpoint.gpu_memory_gb or BASELINE_GB)


WEIGHTS: dict[str, Callable[[Endpoint], int]] = {
    "Capacity": by_capacity,
    "Explicit": by_weight,
    "Hardware": by_hardware,
}


def _least(order: Order, _: PoolSettings, __: Random) -> Policy:
    return Policy(partial(_draw_least, order))


def _draw_least(order: Order) -> tuple[Draw, ...]:
    return (Draw(LeastSource(order)),)


def _round_robin(_: PoolSettings, __: Random) -> Policy:
    return Policy(_draw_turns)


def _draw_turns() -> tuple[Draw, ...]:
    return (Draw(RotationSource()),)


def _weighted_round_robin(settings: PoolSettings, _: Random) -> Policy:
    return Policy(partial(_draw_weighted, WEIGHTS[settings.weight_by]))


def _draw_weighted(weigh: Callable[[Endpoint], int]) -> tuple[Draw, ...]:
    return (Draw(WeightedRotationSource(weigh)),)


def _two_choices(_: PoolSettings, rng: Random) -> Policy:
    return Policy(partial(_draw_two, rng), _score_load_ratio)


def _draw_two(rng: Random) -> tuple[Draw, ...]:
    return (Draw(SampleSource(rng), take=2),)


def _score_load_ratio(_: Request, __: float) -> Score:
    return BY_LOAD_RATIO.of


def _least_tokens(_: PoolSettings, rng: Random) -> Policy:
    return Policy(partial(_draw_least, ByTokens(Ties(rng))), notes=Notes(), needs=Needs(lengths=True, usage=True))


def _weighted_response_time(settings: PoolSettings, _: Random) -> Policy:
    times = ResponseTimes(settings.latency)
    return Policy(partial(_draw_weighted, times.weigh), notes=times)


def _shortest_expected_completion(_: PoolSettings, rng: Random) -> Policy:
    history, ties = History(), Ties(rng)
    score = partial(score_finish, history, ties)
    return Policy(partial(_draw_speeds, ties), score, notes=history, needs=Needs(lengths=True, usage=True))


def _draw_speeds(ties: Ties) -> tuple[Draw, ...]:
    return (Draw(ClassSource(rate_class, ByWork(ties)), SPEEDS_COMPARED),)


def _prefix_cache(settings: PoolSettings, _: Random) -> Policy:
    draws = partial(_draw_ring, settings.max_load_percent)
    return Policy(draws, sees_request=True, needs=Needs(prefix=True))


def _draw_ring(percent: int) -> tuple[Draw, ...]:
    return Draw(RingSource(_prefix, percent)), Draw(LeastSource(BY_LOAD_RATIO))


def _least_estimated_ttft(settings: PoolSettings, rng: Random) -> Policy:
    notes, ties = Prefills(), Ties(rng)
    draws = partial(_draw_first_token, notes, ties, rng)
    score = partial(score_first_token, notes, ties, settings.max_kv_usage)
    needs = Needs(lengths=True, chain=True, usage=True)
    return Policy(draws, score, notes=notes, needs=needs, figures=Figures(), holds=partial(has_backlog, notes))


def _draw_first_token(notes: Prefills, ties: Ties, rng: Random) -> tuple[Draw, ...]:
    order = ByPending(ties)
    return (
        Draw(HolderSource(notes, order), 2),
        Draw(ClassSource(notes.speed_class, order), 3),
        Draw(SampleSource(rng), 2),
    )


def _slot_based(_: PoolSettings, rng: Random) -> Policy:
    figures, ties = Figures(), Ties(rng)
    return Policy(partial(_draw_slots, ties), partial(score_free_slots, figures, ties), figures=figures)


def _draw_slots(ties: Ties) -> tuple[Draw, ...]:
    return (Draw(ClassSource(is_unknown, ByFreeSlots(ties)), 2),)


def _dynamic_score(settings: PoolSettings, rng: Random) -> Policy:
    figures, ties, weights = Figures(), Ties(rng), Weights(*settings.score_weights)
    draws, score = partial(_draw_points, ties, weights), partial(score_points, figures, ties, weights)
    return Policy(draws, score, notes=History(), needs=Needs(lengths=True, usage=True), figures=figures)


def _draw_points(ties: Ties, weights: Weights) -> tuple[Draw, ...]:
    return (Draw(ClassSource(score_class, ByPoints(ties, weights)), SPEEDS_COMPARED),)


def _locality(settings: PoolSettings, _: Random) -> Policy:
    return Policy(_draw_distances, partial(score_nearness, settings.spill_percent))


def _draw_distances() -> tuple[Draw, ...]:
    return (Draw(ClassSource(distance_of, BY_LOAD_RATIO), DISTANCES),)


def _prefix(request: Request) -> int | None:
    return None if request.traits is None else request.traits.prefix


def _session_affinity(settings: PoolSettings, _: Random) -> Policy:
    sessions = Sessions(settings.session_ttl)
    draws = partial(_draw_sessions, sessions, settings)
    needs = Needs(session_header=settings.session_header)
    home = sessions.home if settings.hard_sessions else None
    return Policy(draws, sees_request=True, notes=sessions, needs=needs, home=home)


def _draw_sessions(sessions: Sessions, settings: PoolSettings) -> tuple[Draw, ...]:
    least = LeastSource(BY_LOAD_RATIO)
    percent, hard = settings.max_load_percent, settings.hard_sessions
    return (Draw(SessionSource(sessions, least, percent=percent, hard=hard)),)


STRATEGIES: dict[str, Make] = {
    "WeightedLeastConnections": partial(_least, BY_LOAD_RATIO),
    "LeastRequests": partial(_least, ByInFlight()),
    "RoundRobin": _round_robin,
    "WeightedRoundRobin": _weighted_round_robin,
    "PowerOfTwoChoices": _two_choices,
    "LeastTokens": _least_tokens,
    "WeightedResponseTime": _weighted_response_time,
    "ShortestExpectedCompletion": _shortest_expected_completion,
    "PrefixCache": _prefix_cache,
    "SessionAffinity": _session_affinity,
    "LeastEstimatedTTFT": _least_estimated_ttft,
    "SlotBased": _slot_based,
    "DynamicScore": _dynamic_score,
    "Locality": _locality,
}
"""Named functions and no closures throughout, so that a router can be copied and stored as a whole."""


def strategy_named(name: str) -> Make:
    """Return what makes the policy of that name; ``ValueError`` names those there are."""
    try:
        return STRATEGIES[name]
    except KeyError:
        raise ValueError(f"no strategy {name!r}; there are {', '.join(STRATEGIES)}") from None
