"""What an engine says about its own load."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tailrace.engines.families import Family, Series
from tailrace.engines.prometheus import Sample, samples

MOST_REQUESTS = 1e9
"""No engine holds more: sums and products of counts up to here stay finite wherever they are compared."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """An engine's requests, summed over its label sets.

    `held` are those in neither state (swapped out, in another role's queue; some may be counted in running as well):
    no measure of load, but the engine is not idle while there are any. `kv_usage` is 0..1, None if not told.
    """

    running: float
    waiting: float
    held: float = 0.0
    kv_usage: float | None = None

    @property
    def idle(self) -> bool:
        """Whether the engine has nothing left to answer."""
        return self.running == self.waiting == self.held == 0


def read_gauges(text: str, family: Family) -> Gauges | None:
    """Read `family`'s gauges from an exposition in the Prometheus text format.

    None when the family has none, when running or waiting is missing, or when one of the samples is no number from
    zero on, or one that no engine could hold: an unreadable engine is unknown, never idle.
    """
    return gauges_of(list(samples(text, gauge_names(family))), family) if family.has_gauges else None


def gauges_of(found: list[Sample], family: Family) -> Gauges | None:
    """Read `family`'s gauges from samples; see `read_gauges`."""
    if family.running is None or family.waiting is None:
        return None
    running, waiting = _total(found, family.running), _total(found, family.waiting)
    held = sum(_total(found, series) or 0.0 for series in family.held)
    if running is None or waiting is None or not running + waiting + held <= MOST_REQUESTS:
        return None
    return Gauges(running, waiting, held, _fullest(found, family.kv_usage))


def gauge_names(family: Family) -> frozenset[str]:
    """Return the names of the metrics that `gauges_of` wants."""
    series = (family.running, family.waiting, *family.held, *family.kv_usage)
    return frozenset(one.name for one in series if one is not None)


def belonging(found: Iterable[Sample], series: Series) -> list[Sample]:
    """Return the samples that belong to a series."""
    wanted = series.labels.items()
    return [one for one in found if one.name == series.name and wanted <= one.labels.items()]


def _values(found: Iterable[Sample], series: Series) -> list[float]:
    return [one.value for one in belonging(found, series)]


def _total(found: Iterable[Sample], series: Series) -> float | None:
    """Sum of a series, None if it is absent; NaN as soon as one value is negative, so that nothing cancels out."""
    values = _values(found, series)
    if not values:
        return None
    return sum(values) if all(value >= 0 for value in values) else math.nan


def _fullest(found: Iterable[Sample], names: Iterable[Series]) -> float | None:
    """Return the highest usage of the first name that is there: the fullest cache is the one that refuses work."""
    for series in names:
        values = [value for value in _values(found, series) if math.isfinite(value)]
        if values:
            return max(values)
    return None
