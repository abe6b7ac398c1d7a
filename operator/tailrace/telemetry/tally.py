"""Counters and histograms that cost a dict look-up and an addition: they live on one thread and need no lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

OTHER = "other"
"""The label value of everything past the limit."""


class Labels:
    """Keeps one label within ``limit`` values: the first ones seen stay, later ones are ``other``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def bound(self, value: str) -> str:
        """Return the value to use for the label."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class Histogram:
    """Counts of values by bucket. ``bounds`` are the upper bounds, ascending, without the infinite one."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, count of values up to it), the last bound being ``+Inf``."""
        return list(self._cumulative())

    def _cumulative(self) -> Iterator[tuple[str, float]]:
        below = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            yield bound, float(below)
