"""Looks at the clock for requests that wait: for what no event tells, like the end of a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tailrace.core.router import Router

TICK_SECONDS = 0.05


class Turns:
    """Ticks the router while somebody waits there. Used on the event loop only."""

    def __init__(self, router: Router, clock: Callable[[], float]) -> None:
        self._router = router
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Begin to tick, unless that is done already; it ends when nobody waits any more."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self._router.tick(self._clock())
        finally:  # a mistake must not leave those waiting who are not concerned
            if self._router.waiting():
                self.watch()
