"""The table of strategies: where candidates come from, how they compare, how many are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tailrace.core.endpoint import RANK_BITS, Endpoint
from tailrace.core.sources.base import Source
from tailrace.core.sources.least import LeastSource
from tailrace.core.sources.rotation import RotationSource
from tailrace.core.sources.sample import SampleSource

Score = Callable[[Endpoint], int]


def by_load_ratio(endpoint: Endpoint) -> int:
    """Score: the least in-flight / capacity wins, then the rank. At equal ratio most available memory is most memory.

    Two different fractions with denominators up to 1000 differ by at least 2**-20, so their floors in steps of 2**-20
    keep the exact order of the fractions.
    """
    return ((endpoint.in_flight << 20) // endpoint.capacity << RANK_BITS) | endpoint.rank


def by_in_flight(endpoint: Endpoint) -> int:
    """Score: the fewest in flight win, then the rank."""
    return (endpoint.in_flight << RANK_BITS) | endpoint.rank


def _least_ratio(_rng: Random) -> Source:
    return LeastSource(by_load_ratio)


def _least_in_flight(_rng: Random) -> Source:
    return LeastSource(by_in_flight)


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
        # In turn, whatever the load: least recently picked. For equal pods and requests of equal length. O(log n).
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
