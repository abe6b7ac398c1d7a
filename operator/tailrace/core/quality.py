"""How evenly a pool's endpoints are used, and which strategy it has because of that.

Theory: of the endpoints that have been ready for a while, the load (in-flight / capacity) and the latency (seconds of
requests that came to their end) are averaged over about a minute. Their coefficients of variation, the worse of the
two, make the grade. A grade counts once it has held for a while, so that nobody is told of every gust. All of it is
of the requests that went through this replica.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from math import sqrt

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Grade, PoolQuality, PoolSettings, Spread
from tailrace.core.pool import Pool

BOUNDS = (0.1, 0.2, 0.3)
GRADES = (Grade.EXCELLENT, Grade.GOOD, Grade.FAIR, Grade.POOR)
"""Those below each of the bounds, and the last one from the highest on."""

HALF_LIFE_SECONDS = 30.0
WARM_SECONDS = 30.0
"""For how long an endpoint must have been ready to be compared with others."""
HOLD_SECONDS = 60.0
"""For how long a grade must have stood to be told."""
LEAST_IN_FLIGHT = 1.0
LEAST_ENDED = 5.0
"""With fewer in flight or ended on average, chance alone makes a pool look poor: then there is no grade."""


def grade_of(cv: float) -> Grade:
    """Return the grade of a coefficient of variation."""
    return GRADES[bisect(BOUNDS, cv)]


def spread(values: Sequence[float]) -> Spread:
    """Return the coefficient of variation, and (max - min) / max; both 0 where all values are 0."""
    mean, most = sum(values) / len(values), max(values)
    if most <= 0.0:
        return Spread(0.0, 0.0)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return Spread(sqrt(variance) / mean, (most - min(values)) / most)


class Seen:
    """What was seen of one endpoint, older things counting less."""

    __slots__ = ("_at", "_counted", "_ended", "_in_flight", "_seconds", "_since", "_took", "_weight")

    def __init__(self, endpoint: Endpoint, now: float) -> None:
        self._since = self._at = now
        self._weight = self._in_flight = self._ended = self._seconds = 0.0
        self._counted, self._took = endpoint.ended, endpoint.took

    def sample(self, endpoint: Endpoint, now: float) -> None:
        """Have a look at the endpoint."""
        keep = 0.5 ** ((now - self._at) / HALF_LIFE_SECONDS)
        self._at = now
        self._weight = self._weight * keep + 1.0
        self._in_flight = self._in_flight * keep + endpoint.in_flight
        self._ended = self._ended * keep + endpoint.ended - self._counted
        self._seconds = self._seconds * keep + endpoint.took - self._took
        self._counted, self._took = endpoint.ended, endpoint.took

    def is_warm(self, now: float) -> bool:
        """Whether it was seen for long enough."""
        return now - self._since >= WARM_SECONDS

    @property
    def in_flight(self) -> float:
        """The mean number of requests in flight."""
        return self._in_flight / self._weight

    @property
    def latency(self) -> float | None:
        """The mean seconds of requests, None after too few."""
        return self._seconds / self._ended if self._ended >= LEAST_ENDED else None


class HeldGrade:
    """A grade that changes only when another one has stood for a while."""

    def __init__(self) -> None:
        self.grade: Grade | None = None
        self._next: Grade | None = None
        self._since = 0.0

    def see(self, grade: Grade | None, now: float) -> None:
        """Take in the grade as it looks now."""
        if grade is not self._next:
            self._next, self._since = grade, now
        if now - self._since >= HOLD_SECONDS:
            self.grade = grade

    def poor_for(self, now: float) -> float:
        """Return for how many seconds the grade has been Poor; 0 when it is not."""
        return now - self._since if self.grade is self._next is Grade.POOR else 0.0


class Watched:
    """One pool: its grade, and whether it has its fallback strategy at work."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.held = HeldGrade()
        self.load: Spread | None = None
        self.latency: Spread | None = None
        self.fallen_back_at: float | None = None

    def compare(self, endpoints: Sequence[tuple[Endpoint, Seen]], now: float) -> None:
        """Take in how the endpoints do that have been seen for long enough."""
        loads = [seen.in_flight / endpoint.capacity for endpoint, seen in endpoints]
        latencies = [latency for _, seen in endpoints if (latency := seen.latency) is not None]
        busy = sum(seen.in_flight for _, seen in endpoints) >= LEAST_IN_FLIGHT * len(endpoints)
        self.load = spread(loads) if busy and len(loads) > 1 else None
        self.latency = spread(latencies) if len(latencies) > 1 else None
        known = [part.cv for part in (self.load, self.latency) if part is not None]
        self.held.see(grade_of(max(known)) if known else None, now)

    def choose(self, now: float) -> None:
        """Fall back when the pool has been Poor for long, and try its own strategy again when its time has come.

        How even the pool is under the fallback says nothing of how it would be under its own strategy: so only time
        leads back. Either way the grade begins anew.
        """
        if self.fallen_back_at is None:
            due = self.settings.fallback and self.held.poor_for(now) >= self.settings.fallback_after
            if due:
                self._turn(now)
        elif now - self.fallen_back_at >= self.settings.fallback_for:
            self._turn(None)

    def _turn(self, fallen_back_at: float | None) -> None:
        self.fallen_back_at = fallen_back_at
        self.held = HeldGrade()


class Monitor:
    """Watches the pools of a replica. ``sample`` is to be called every few seconds; it looks at every endpoint."""

    def __init__(self) -> None:
        self._seen: dict[Endpoint, Seen] = {}
        self._watched: dict[str, Watched] = {}

    def sample(self, pools: Iterable[tuple[str, PoolSettings, Pool]], now: float) -> dict[str, str]:
        """Have a look at the pools: key, settings as they were asked for, pool; return the fallbacks, by key."""
        found = list(pools)
        self._look({endpoint for _, _, pool in found for endpoint in pool.ready}, now)
        known, self._watched = self._watched, {}
        for key, settings, pool in found:
            before = known.get(key)
            same = before is not None and before.settings == settings
            watched = self._watched[key] = before if before is not None and same else Watched(settings)
            pairs = [(endpoint, self._seen[endpoint]) for endpoint in pool.ready]
            watched.compare([pair for pair in pairs if pair[1].is_warm(now)], now)
            watched.choose(now)
        return {key: each.settings.fallback for key, each in self._watched.items() if each.fallen_back_at is not None}

    def _look(self, ready: set[Endpoint], now: float) -> None:
        known, self._seen = self._seen, {}
        for endpoint in ready:
            seen = self._seen[endpoint] = known.get(endpoint) or Seen(endpoint, now)
            seen.sample(endpoint, now)

    def quality(self, key: str, servers: tuple[str, ...], strategy: str) -> PoolQuality:
        """Return what is known of a pool."""
        watched = self._watched.get(key)
        if watched is None:
            return PoolQuality(key, servers, strategy)
        return PoolQuality(key, servers, strategy, watched.held.grade, watched.load, watched.latency)
