"""What one pick costs: route_request + complete_request at 10 to 10,000 servers, harness overhead subtracted.

Run: python bench/pick.py [servers ...]. Unequal servers at 80 % load, completions in random order, 1 % long prompts.
CPU time of this process, median of several rounds. Absolute figures depend on the machine; the ratio does not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import median
from time import process_time_ns

from tailrace import LoadBalancer

SIZES = (10, 100, 1_000, 10_000)
ROUNDS = 9
PAIRS = 20_000
LOAD = 0.8
LONG_SHARE = 0.01
CAPACITIES = (4, 8, 16, 32, 64)
MEMORIES = (24, 40, 80, 141)

Route = Callable[[str, int], object]
Complete = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Round:
    """One round's work, made before the clock starts: which request ends, and the one that comes."""

    ends: list[int]
    ids: list[str]
    tokens: list[int]


def filled(servers: int, rng: Random) -> tuple[LoadBalancer, list[str]]:
    """Return a balancer at the load of the benchmark, and the ids in flight."""
    balancer = LoadBalancer()
    slots = 0
    for number in range(servers):
        capacity = rng.choice(CAPACITIES)
        balancer.add_server(f"server-{number}", capacity, MEMORIES[number % len(MEMORIES)])
        slots += capacity
    active = [f"first-{number}" for number in range(int(slots * LOAD))]
    for request_id in active:
        balancer.route_request(request_id, 100)
    return balancer, active


def make_round(active: int, number: int, rng: Random) -> Round:
    """Return the work of one round."""
    return Round(
        ends=[rng.randrange(active) for _ in range(PAIRS)],
        ids=[f"round-{number}-{pair}" for pair in range(PAIRS)],
        tokens=[5_000 if rng.random() < LONG_SHARE else 500 for _ in range(PAIRS)],
    )


def run(work: Round, active: list[str], route: Route, complete: Complete) -> float:
    """Do one round; return nanoseconds per pair."""
    start = process_time_ns()
    for end, request_id, tokens in zip(work.ends, work.ids, work.tokens, strict=True):
        complete(active[end])
        active[end] = request_id
        route(request_id, tokens)
    return (process_time_ns() - start) / PAIRS


def no_route(_request_id: str, _tokens: int) -> None:
    """Stand in for a route: what calling anything costs is the harness's own."""


def no_complete(_request_id: str) -> None:
    """Stand in for a completion."""


def measure(servers: int) -> tuple[float, float]:
    """Return microseconds per pair of the balancer, and of the harness alone."""
    rng = Random(servers)
    balancer, active = filled(servers, rng)
    rounds = [make_round(len(active), number, rng) for number in range(ROUNDS)]
    whole = median(run(work, active, balancer.route_request, balancer.complete_request) for work in rounds)
    harness = median(run(work, list(active), no_route, no_complete) for work in rounds)
    return (whole - harness) / 1_000, harness / 1_000


def main(sizes: list[int]) -> None:
    """Print one row a size."""
    print(f"{'servers':>8} {'us/pair':>8} {'x first':>8} {'harness':>8}")
    first = 0.0
    for servers in sizes:
        pair, harness = measure(servers)
        first = first or pair
        print(f"{servers:>8} {pair:>8.2f} {pair / first:>8.2f} {harness:>8.2f}")


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or list(SIZES))
