"""The engine's clock: the real one at a rate that can change while it runs."""

from collections.abc import Callable


class RateClock:
    """Seconds that pass `rate` times as fast as those of `real`; rate 0 stops them.

    `real` is a monotonic clock. Changing the rate never makes the time jump.
    """

    def __init__(self, real: Callable[[], float], rate: float = 1.0) -> None:
        self._real = real
        self._rate = rate
        self._changed = real()
        self._at_change = 0.0

    @property
    def rate(self) -> float:
        """Engine seconds per real second."""
        return self._rate

    def now(self) -> float:
        """Return the engine's time in seconds."""
        return self._at_change + (self._real() - self._changed) * self._rate

    def set_rate(self, rate: float) -> None:
        """Run at `rate` from now on."""
        self._at_change = self.now()
        self._changed = self._real()
        self._rate = rate

    def real_seconds_until(self, time: float) -> float | None:
        """Return how long the engine's `time` is away, at least 0; None while it will not come."""
        remaining = time - self.now()
        if remaining <= 0:
            return 0.0
        if self._rate == 0 or remaining == float("inf"):
            return None
        return remaining / self._rate
