"""How long a container that ended waits for its next start."""


class Backoff:
    """The kubelet's rule with shorter times: the first restart at once, then `base` doubling up to `cap`.

    A run of ten times `cap` counts as good and starts the row again. All times in seconds.
    """

    def __init__(self, base: float, cap: float) -> None:
        self._base = base
        self._cap = cap
        self._failures = 0

    def next_delay(self, ran_for: float) -> float:
        """Return the delay before the next start, given how long the last run took."""
        if ran_for >= 10 * self._cap:
            self._failures = 0
        self._failures += 1
        return 0.0 if self._failures == 1 else min(self._cap, self._base * 2.0 ** (self._failures - 2))
