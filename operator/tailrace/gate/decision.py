"""When the gate may let SIGTERM through. Pure: the clock is passed in, the I/O around it only reports.

1. A router that says `safe_to_delete` ends the hold.
2. The deadline, hook start + timeout, ends it.
3. While no router is in touch, the engine may end it: alone for at least `floor` seconds, and idle in two
   consecutive readings at least `idle_gap` seconds apart, both taken while alone.
4. Nothing else does. A router that is in touch again takes over, and rule 3 starts from the beginning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tailrace.engines.gauges import Gauges
from tailrace.gate.protocol import Answer, Fault


class Ended(StrEnum):
    """Why a hold ended."""

    DRAINED = "drained"
    IDLE = "engine-idle"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Limits:
    """The seconds a hold lives by: the drain timeout, `floor` and `idle_gap` of rule 3, calls to a router apart."""

    timeout: float
    floor: float = 10.0
    idle_gap: float = 1.0
    spacing: float = 1.0


class Hold:
    """One drain of one pod, from the hook's call to its answer. Times are seconds on one monotonic clock."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.started = now
        self.deadline = now + limits.timeout
        self._limits = limits
        self._in_touch: set[str] = set()
        self._alone_since = now
        self._idle_since: float | None = None
        self._ended: Ended | None = None

    @property
    def alone(self) -> bool:
        """Whether no router is in touch, so that the engine's gauges count."""
        return not self._in_touch

    def heard(self, router: str, word: Answer | Fault, now: float) -> None:
        """Take in what one router answered, or that it could not be asked."""
        if isinstance(word, Fault):
            self._lost(router, now)
        else:
            self._in_touch.add(router)
            self._idle_since = None
            if word.safe_to_delete:
                self._end(Ended.DRAINED)

    def read(self, gauges: Gauges | None, now: float) -> None:
        """Take in one reading of the engine; None is an engine that did not answer or has no gauges."""
        if gauges is None or not gauges.idle or not self.alone:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= self._limits.idle_gap and now - self._alone_since >= self._limits.floor:
            self._end(Ended.IDLE)

    def ended(self, now: float) -> Ended | None:
        """Return why the hook may be answered at `now`, None to hold on. Once ended, a hold stays ended."""
        if now >= self.deadline:
            self._end(Ended.DEADLINE)
        return self._ended

    def _lost(self, router: str, now: float) -> None:
        if router in self._in_touch:
            self._in_touch.remove(router)
            self._alone_since = now

    def _end(self, reason: Ended) -> None:
        if self._ended is None:
            self._ended = reason


class HelloPlan:
    """When to say hello next: `every` seconds once a router knows the pod, sooner (1 s doubling to 10 s) until then."""

    def __init__(self, every: float, jitter: Callable[[], float]) -> None:
        """Take the seconds between hellos and a source of numbers in -1..1 that spreads pods by up to a tenth."""
        self._every = every
        self._jitter = jitter
        self._backoff = 1.0

    def delay(self, *, known: bool) -> float:
        """Return the seconds to the next hello, after one that reached a router which knows the pod, or did not."""
        if known:
            self._backoff = 1.0
            return self._every * (1 + 0.1 * self._jitter())
        delay, self._backoff = self._backoff, min(2 * self._backoff, 10.0)
        return min(delay, self._every)
