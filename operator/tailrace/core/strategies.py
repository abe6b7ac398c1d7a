"""The table of strategies: where candidates come from, how they compare, how many are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tailrace.core.endpoint import Endpoint, Rank
from tailrace.core.sources.base import Source
from tailrace.core.sources.least import LeastSource
from tailrace.core.sources.rotation import RotationSource
from tailrace.core.sources.sample import SampleSource

Score = Callable[[Endpoint], tuple[float, Rank]]


def load_ratio(endpoint: Endpoint) -> int:
    """Return in-flight / capacity as an integer with the exact order of the fractions.

    Two different fractions with denominators up to 1000 differ by more than 2**-20, so their scaled floors differ.
    """
    return (endpoint.in_flight << 20) // endpoint.capacity


def in_flight(endpoint: Endpoint) -> int:
    """Return the number of requests in flight."""
    return endpoint.in_flight


def by_load_ratio(endpoint: Endpoint) -> tuple[float, Rank]:
    """Score: the least load ratio wins, then the rank. At equal ratio most available memory is most memory."""
    return (load_ratio(endpoint), endpoint.rank)


def by_in_flight(endpoint: Endpoint) -> tuple[float, Rank]:
    """Score: the fewest in flight win, then the rank."""
    return (endpoint.in_flight, endpoint.rank)


def _least_ratio(_rng: Random) -> Source:
    return LeastSource(load_ratio)


def _least_in_flight(_rng: Random) -> Source:
    return LeastSource(in_flight)


def _rotation(_rng: Random) -> Source:
    return RotationSource()


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row: ``take`` candidates are read from each source and the lowest score is picked.

    With one candidate there is nothing to compare and the score is not computed.
    """

    name: str
    sources: tuple[Callable[[Random], Source], ...]
    score: Score
    take: int = 1


STRATEGIES: dict[str, Strategy] = {
    row.name: row
    for row in (
        # Weighted least connections, as in the Linux Virtual Server scheduler of that name. For pods of unequal size.
        # O(log n).
        Strategy("WeightedLeastConnections", (_least_ratio,), by_load_ratio),
        # Least outstanding requests. For pods of equal size, or when capacity is only a ceiling. O(log n).
        Strategy("LeastRequests", (_least_in_flight,), by_in_flight),
        # In turn, whatever the load. For equal pods and requests of equal length. O(log n).
        Strategy("RoundRobin", (_rotation,), by_in_flight),
        # Mitzenmacher, "The power of two choices in randomized load balancing" (2001). For many replicas of the
        # router that do not see each other's picks. O(1).
        Strategy("PowerOfTwoChoices", (SampleSource,), by_load_ratio, take=2),
    )
}


def strategy_named(name: str) -> Strategy:
    """Return the row of that name; ``ValueError`` names those there are."""
    try:
        return STRATEGIES[name]
    except KeyError:
        raise ValueError(f"no strategy {name!r}; there are {', '.join(STRATEGIES)}") from None
