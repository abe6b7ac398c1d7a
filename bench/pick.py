"""What one pick costs: choosing an endpoint and letting go of it again, at 10 to 10,000 endpoints.

Run: python -m bench pick. Unequal endpoints at 80 % load, ends in random order, 1 % long prompts. CPU time of this
process, the harness's own subtracted, the least of several rounds: whatever else the machine does only adds. Three
layers are measured: the public `LoadBalancer` (route_request + complete_request), the `Pool` alone (pick + take +
free), and the `Router` as the doors call it (acquire + release). Beside them stands a table alone: a dict of what is in
flight, for which nothing is chosen. Absolute figures depend on the machine; the ratio between sizes does not.

Then every strategy as the doors call it, with what it wants to know of a request, given in random order.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from random import Random
from time import process_time_ns
from typing import Any

from bench.marks import Mark, show

from tailrace import LoadBalancer
from tailrace.core import pool as pool_module
from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import (
    EndpointSpec,
    ModelSpec,
    Outcome,
    Pick,
    PoolSettings,
    Reading,
    Request,
    ServerSpec,
    Snapshot,
    Traits,
)
from tailrace.core.pool import Pool
from tailrace.core.router import Router
from tailrace.core.strategies import STRATEGIES

SIZES = (10, 100, 1_000, 10_000)
ROUNDS = 9
FEWER_ROUNDS = 5
KINDS = 5_000
"""How many kinds of requests there are: sessions and prefixes come again."""
PAIRS = 20_000
LOAD = 0.8
LONG_SHARE = 0.01
LONG, SHORT = 5_000, 500
CAPACITIES = (4, 8, 16, 32, 64)
MEMORIES = (24, 40, 80, 141)
MODEL = "demo"
PLAIN = "WeightedLeastConnections"
"""What the public class does, for the layers to be compared by."""
NOW = 1_000.0
FOREVER = 1e9

COMPILED = not (pool_module.__file__ or "").endswith(".py")
"""Whether it is a compiled wheel that is measured."""
MOST_MICROSECONDS = 1.0 if COMPILED else 4.0
MOST_GROWTH = None if COMPILED else 3.0

Shape = list[tuple[int, int]]
"""Capacity and GPU memory of each endpoint."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that picks: ``take`` gets a request's id and tokens and returns what ``give`` gets at its end."""

    take: Callable[[str, int], Any]
    give: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Round:
    """One round's work, made before the clock starts: which request ends, and the one that comes."""

    ends: list[int]
    ids: list[str]
    tokens: list[int]


def balancer(shape: Shape) -> Subject:
    """Return the public class."""
    made = LoadBalancer()
    for number, (capacity, memory) in enumerate(shape):
        made.add_server(f"server-{number}", capacity, memory)

    def take(request_id: str, tokens: int) -> str:
        made.route_request(request_id, tokens)
        return request_id

    return Subject(take, made.complete_request)


def pool(shape: Shape) -> Subject:
    """Return a pool without accounts around it."""
    made = Pool(PoolSettings(PLAIN), Random(0))
    for number, (capacity, memory) in enumerate(shape):
        endpoint = Endpoint(f"e-{number}", address="", capacity=capacity, gpu_memory_gb=memory, added=number)
        endpoint.on(Event.SEEN_READY)
        made.add(endpoint)

    def take(_: str, tokens: int) -> Endpoint:
        endpoint = made.pick(tokens)
        assert endpoint is not None
        endpoint.take()
        return endpoint

    return Subject(take, Endpoint.free)


def routed(shape: Shape, strategy: str) -> Router:
    """Return a router over the endpoints."""
    made = Router("bench", booted_at=NOW, rng=Random(0))
    pool = PoolSettings(strategy, engine_interval=FOREVER)
    server = ServerSpec(key="ns/s", namespace="ns", models=(ModelSpec(MODEL),), created_at=1.0, pool=pool)
    endpoints = tuple(
        EndpointSpec(f"e-{n}", "ns/s", f"e-{n}", f"10.0.0.1:{n}", capacity, ready=True, gpu_memory_gb=memory)
        for n, (capacity, memory) in enumerate(shape)
    )
    made.apply(Snapshot((server,), endpoints), NOW)
    rng = Random(2)
    for uid in made.engines():
        made.engine_told(uid, Reading(rng.randrange(4), rng.randrange(2), kv_usage=rng.random()), NOW)
    return made


def router(shape: Shape) -> Subject:
    """Return the entry that the doors use."""
    made = routed(shape, PLAIN)

    def take(_: str, tokens: int) -> str:
        pick = made.acquire(Request(MODEL, tokens), NOW)
        assert isinstance(pick, Pick)
        return pick.attempt

    return Subject(take, lambda attempt: made.release(attempt, Outcome.COMPLETED, NOW))


def strategy(name: str, shape: Shape) -> Subject:
    """Return the entry that the doors use, for short prompts that tell what the strategy may ask."""
    made = routed(shape, name)
    rng = Random(1)
    kinds = [make_traits(rng) for _ in range(KINDS)]
    now = NOW

    def take(_: str, __: int) -> str:
        nonlocal now
        now += 0.001
        pick = made.acquire(Request(MODEL, SHORT, traits=rng.choice(kinds)), now)
        assert isinstance(pick, Pick)
        made.first_byte(pick.attempt, now)
        return pick.attempt

    return Subject(take, lambda attempt: made.release(attempt, Outcome.COMPLETED, now))


def make_traits(rng: Random) -> Traits:
    """Return what a door might have found out of some request."""
    prompt, output = int(rng.lognormvariate(6, 1)), int(rng.lognormvariate(5, 1))
    chain = tuple(rng.getrandbits(60) for _ in range(prompt // 128))
    session = f"session-{rng.randrange(KINDS)}"
    return Traits(prompt, output, session, rng.getrandbits(64), chain, streams=True)


def table(shape: Shape) -> Subject:
    """Return the least that knowing who is where can cost, whoever chooses: a table of the requests in flight."""
    endpoints = [object() for _ in shape]
    held: dict[str, object] = {}
    chosen = cycle(endpoints)

    def take(request_id: str, _: int) -> str:
        if request_id not in held:
            held[request_id] = next(chosen)
        return request_id

    return Subject(take, held.pop)


def nothing() -> Subject:
    """Return what costs only what the harness costs."""
    return Subject(lambda request_id, _: request_id, lambda _: None)


LAYERS: dict[str, Callable[[Shape], Subject]] = {
    "LoadBalancer": balancer,
    "Pool": pool,
    "Router": router,
    "table alone": table,
}


def make_shape(endpoints: int, rng: Random) -> Shape:
    """Return unequal endpoints."""
    return [(rng.choice(CAPACITIES), MEMORIES[number % len(MEMORIES)]) for number in range(endpoints)]


def make_round(active: int, number: int, rng: Random) -> Round:
    """Return the work of one round."""
    return Round(
        ends=[rng.randrange(active) for _ in range(PAIRS)],
        ids=[f"round-{number}-{pair}" for pair in range(PAIRS)],
        tokens=[LONG if rng.random() < LONG_SHARE else SHORT for _ in range(PAIRS)],
    )


def run(work: Round, active: list[Any], subject: Subject) -> float:
    """Do one round; return microseconds per pair."""
    take, give = subject.take, subject.give
    start = process_time_ns()
    for end, request_id, tokens in zip(work.ends, work.ids, work.tokens, strict=True):
        give(active[end])
        active[end] = take(request_id, tokens)
    return (process_time_ns() - start) / PAIRS / 1_000


def cost(subject: Subject, active: int, endpoints: int, rounds: int = ROUNDS) -> float:
    """Return microseconds per pair, the least of the rounds; the same requests for every subject."""
    rng = Random(endpoints)
    held = [subject.take(f"first-{number}", SHORT) for number in range(active)]
    gc.collect()
    return min(run(make_round(active, number, rng), held, subject) for number in range(rounds))


def measure(endpoints: int) -> dict[str, float]:
    """Return microseconds per pair of each layer, and of the harness alone."""
    shape = make_shape(endpoints, Random(endpoints))
    active = int(sum(capacity for capacity, _ in shape) * LOAD)
    harness = cost(nothing(), active, endpoints)
    costs = {name: cost(make(shape), active, endpoints) - harness for name, make in LAYERS.items()}
    return costs | {"harness": harness}


def measure_strategies(endpoints: int) -> dict[str, float]:
    """Return microseconds per pair of every strategy; the choice among the kinds of requests is in them."""
    shape = make_shape(endpoints, Random(endpoints))
    active = int(sum(capacity for capacity, _ in shape) * LOAD)
    return {name: cost(strategy(name, shape), active, endpoints, FEWER_ROUNDS) for name in STRATEGIES}


def marks(name: str, few: float, many: float) -> list[Mark]:
    """Return what a layer's costs at the fewest and the most endpoints are held against: the public class, to marks."""
    most, growth = (MOST_MICROSECONDS, MOST_GROWTH) if name == "LoadBalancer" else (None, None)
    return [
        Mark(f"{name}: one pair at {SIZES[-1]:,} endpoints", many, most, "us"),
        Mark(f"{name}: {SIZES[-1]:,} endpoints against {SIZES[0]}", many / few, growth, "x"),
    ]


def main() -> None:
    """Print one row a size, then the marks."""
    print(f"microseconds of CPU for one pick and its end, {'compiled' if COMPILED else 'pure Python'}")
    print(f"{'endpoints':>9}" + "".join(f"{name:>14}" for name in (*LAYERS, "harness")))
    found = {}
    for endpoints in SIZES:
        found[endpoints] = measure(endpoints)
        print(f"{endpoints:>9,}" + "".join(f"{value:>14.2f}" for value in found[endpoints].values()), flush=True)
    few, many = found[SIZES[0]], found[SIZES[-1]]
    show(mark for name in LAYERS for mark in marks(name, few[name], many[name]))
    print(f"\nevery strategy, as the doors call it\n{'endpoints':>28}{SIZES[0]:>10,}{SIZES[-1]:>10,}")
    by_size = [measure_strategies(endpoints) for endpoints in (SIZES[0], SIZES[-1])]
    for name in STRATEGIES:
        print(f"{name:<28}" + "".join(f"{costs[name]:>10.2f}" for costs in by_size), flush=True)


if __name__ == "__main__":
    main()
