"""The one clock of a process: wall time that never goes back."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch, anchored to the wall clock when made and monotonic from there.

    Wall time is needed because Kubernetes writes deadlines in it; steps of the wall clock must not move them.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Return the present time."""
        return time.monotonic() + self._offset
