"""Whether something grows: the straight line through its measured values, and how far that may rise."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import linear_regression

LEAST_POINTS = 4
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a value may rise over a run before it counts as growing: an amount, or a share of the value."""

    amount: float
    share: float

    def of(self, value: float) -> float:
        """Return the rise that is allowed for such a value."""
        return max(self.amount, self.share * value)


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series did over ``seconds``: its first value on the line, the rise of the line, and whether it grows."""

    first: float
    rise: float
    seconds: float
    grows: bool

    @property
    def per_hour(self) -> float:
        """The slope of the line."""
        return self.rise / self.seconds * SECONDS_PER_HOUR


def growth(points: list[tuple[float, float]], limit: Limit) -> Growth | None:
    """Judge (seconds, value) points; None when they are too few to say anything."""
    if len(points) < LEAST_POINTS:
        return None
    times, values = zip(*points, strict=True)
    slope, intercept = linear_regression(times, values)
    seconds = times[-1] - times[0]
    first = intercept + slope * times[0]
    rise = slope * seconds
    return Growth(first, rise, seconds, grows=rise > limit.of(first))


def longest_life(samples: list[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """Return the points of the process that was measured most often, from (process id, seconds, value)."""
    lives: dict[int, list[tuple[float, float]]] = {}
    for pid, at, value in samples:
        lives.setdefault(pid, []).append((at, value))
    return max(lives.values(), key=len, default=[])
