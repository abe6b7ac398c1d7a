"""One timer for one request: it interrupts the request's task, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from math import inf

from tailrace.core.exchange import Failure
from tailrace.core.model import Timeouts


class Stop(Enum):
    """Why a request is interrupted although its engine did nothing wrong."""

    CUT = "cut"
    SHUTDOWN = "shutting_down"
    CLIENT_STALLED = "client-stalled"


class Watch:
    """Interrupts a task by cancelling it, and keeps the reason in ``why``.

    Progress is noted by writing the loop's time to ``touched``, which costs nothing: the timer looks at it only when
    it fires, and sleeps again for what is left. ``client_blocks`` says whether the client has stopped reading.
    """

    __slots__ = (
        "_began",
        "_client_blocks",
        "_deadline",
        "_loop",
        "_started",
        "_stream",
        "_task",
        "_timeouts",
        "_timer",
        "_wait",
        "touched",
        "why",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[object],
        *,
        stream: bool,
        client_blocks: Callable[[], bool],
    ) -> None:
        self.touched = loop.time()
        self.why: Failure | Stop | None = None
        self._loop = loop
        self._task = task
        self._stream = stream
        self._client_blocks = client_blocks
        self._started = self.touched
        self._timeouts = Timeouts()
        self._deadline = inf
        self._wait = inf
        self._began = False
        self._timer: asyncio.TimerHandle | None = None

    def attempt(self, timeouts: Timeouts) -> None:
        """Begin an attempt: wait for its first byte; the total counts from the request's start."""
        self.why = None
        self.touched = self._loop.time()
        self._timeouts = timeouts
        self._deadline = self._started + timeouts.total
        self._wait = timeouts.first_byte if self._stream else inf
        self._arm()

    def begin(self) -> None:
        """Note the first byte: from here on the pauses between chunks count. The timer looks often enough already."""
        self._began = True
        self.touched = self._loop.time()
        self._wait = self._timeouts.idle

    def stop(self) -> None:
        """Interrupt no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def interrupt(self, why: Failure | Stop) -> None:
        """Cancel the task for this reason, if it is under watch and not interrupted already."""
        if self._timer is not None and self.why is None:
            self.why = why
            self._task.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(self._due(), self._loop.time() + self._timeouts.idle), self._fire)

    def _due(self) -> float:
        return min(self._deadline, self.touched + self._wait)

    def _fire(self) -> None:
        now = self._loop.time()
        if now >= self._due():
            self._expired(now)
        if self.why is None:
            self._arm()

    def _expired(self, now: float) -> None:
        if self._began and self._client_blocks():
            self.interrupt(Stop.CLIENT_STALLED)
        elif now >= self._deadline:
            self.interrupt(Failure.TOTAL)
        elif not self._stream:
            self.touched = now  # an engine may think as long as it likes about an answer that is not streamed
        else:
            self.interrupt(Failure.IDLE if self._began else Failure.LATE)
