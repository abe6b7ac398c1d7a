"""Small learners: figures that follow what is seen and forget what is old. Bounded, O(1) or nearly so."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil, log

WINDOW = 100
"""How many values a quantile is taken of."""

LATELY_SECONDS = 2.0
LONG_SECONDS = 60.0
"""Of work, not of time that passed: in which half of what was seen before is forgotten."""
FRESH_SECONDS = 10.0
GUESS_SECONDS = 0.25
RATE_SECONDS = 10.0


class Rate:
    """How often something happens, in times a second; what was seen ``RATE_SECONDS`` ago counts half."""

    __slots__ = ("_count", "_seen_at")

    def __init__(self) -> None:
        self._count = 0.0
        self._seen_at = 0.0

    def see(self, now: float) -> None:
        """Take in that it has happened."""
        self._count = self._count * self._kept(now) + 1.0
        self._seen_at = now

    def at(self, now: float) -> float:
        """Return the rate as believed now, 0 when it never happened."""
        return self._count * self._kept(now) * log(2.0) / RATE_SECONDS

    def _kept(self, now: float) -> float:
        return float(0.5 ** (max(0.0, now - self._seen_at) / RATE_SECONDS))


class Mean:
    """An exponentially weighted mean: ``value`` is None until something was seen."""

    __slots__ = ("_smoothing", "value")

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self.value: float | None = None

    def see(self, value: float) -> None:
        """Take in one value."""
        self.value = value if self.value is None else self.value + self._smoothing * (value - self.value)


class Quantile:
    """A quantile (0 to 1) of the last ``WINDOW`` values: exact, by a sorted copy of them."""

    __slots__ = ("_last", "_share", "_sorted")

    def __init__(self, share: float) -> None:
        self._share = share
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def see(self, value: float) -> None:
        """Take in one value; the oldest goes."""
        self._last.append(value)
        insort(self._sorted, value)
        if len(self._last) > WINDOW:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]

    @property
    def value(self) -> float | None:
        """The smallest value that at least that share of the values do not exceed; None until something was seen."""
        if not self._sorted:
            return None
        return self._sorted[max(1, ceil(self._share * len(self._sorted))) - 1]


class Ratio:
    """What comes of what is put in: a ratio of two sums that both forget. Large samples weigh more than small ones."""

    __slots__ = ("_above", "_below", "_keep")

    def __init__(self, keep: float, value: float = 1.0, weight: float = 1.0) -> None:
        self._keep = keep
        self._above = value * weight
        self._below = weight

    def see(self, above: float, below: float) -> None:
        """Take in one pair."""
        self._above = self._above * self._keep + above
        self._below = self._below * self._keep + below

    def fade(self, keep: float, value: float) -> None:
        """Forget all but that part of what was seen, and believe that much less in it than in ``value``."""
        self._above = keep * (keep * self._above + (1.0 - keep) * value * self._below)
        self._below *= keep

    @property
    def value(self) -> float:
        """The ratio, at first the one it began with."""
        return self._above / self._below


class Speed:
    """Amount per second, on two scales: what was seen lately counts while it is fresh, the long run after that.

    So who slows down is noticed within a few samples, and who got nothing since is believed, after some seconds, to be
    what it usually is. Sums are divided, so that samples that ended together tell their speed together.
    """

    __slots__ = ("_lately", "_long", "_seen_at")

    def __init__(self) -> None:
        self._lately = (0.0, 0.0)
        self._long = (0.0, 0.0)
        self._seen_at = 0.0

    @property
    def guessed(self) -> bool:
        """Whether a guess still counts for more than what was seen."""
        return self._long[1] < GUESS_SECONDS

    def see(self, amount: float, seconds: float, now: float) -> None:
        """Take in that so much was done in so much time."""
        self._lately = _decayed(self._lately, 0.5 ** (seconds / LATELY_SECONDS), amount, seconds)
        self._long = _decayed(self._long, 0.5 ** (seconds / LONG_SECONDS), amount, seconds)
        self._seen_at = now

    def last(self, guess: float) -> float:
        """Return the speed as last seen; ``guess`` is what it counts as before anything was."""
        return _speed(self._lately, guess)

    def usual(self, guess: float) -> float:
        """Return the speed in the long run."""
        return _speed(self._long, guess)

    def at(self, now: float, guess: float) -> float:
        """Return the speed as believed now."""
        usual = self.usual(guess)
        fresh = 0.5 ** (max(0.0, now - self._seen_at) / FRESH_SECONDS)
        return float(usual + fresh * (_speed(self._lately, usual) - usual))


def _decayed(sums: tuple[float, float], keep: float, amount: float, seconds: float) -> tuple[float, float]:
    return sums[0] * keep + amount, sums[1] * keep + seconds


def _speed(sums: tuple[float, float], guess: float) -> float:
    """Return amount / seconds, with the guess worth ``GUESS_SECONDS`` of having seen it."""
    return (sums[0] + GUESS_SECONDS * guess) / (sums[1] + GUESS_SECONDS)
