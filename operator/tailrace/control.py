"""The loop that makes true what the core says should be: cuts, questions to engines, words to the child."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from tailrace.changes import Changes
from tailrace.core.router import Router
from tailrace.link import Desired, EndpointReport

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""Counters reach the child at least this often; drains do at once."""

PAUSE_SECONDS = 0.02
"""Between two rounds: a burst of changes is one round."""

QUESTION_SECONDS = 1.0

Ask = Callable[[str, str], Awaitable[bool | None]]
"""(address, engine) -> whether the engine says it is idle; None when it cannot tell."""


class Control:
    """One replica's control loop. ``cut`` ends attempts at their deadline, ``desire`` speaks to the child."""

    def __init__(
        self,
        router: Router,
        clock: Callable[[], float],
        changes: Changes,
        *,
        cut: Callable[[Iterable[str]], None],
        desire: Callable[[Desired], None],
        gates_seen: Callable[[], frozenset[str]],
        ask: Ask,
    ) -> None:
        self._router = router
        self._clock = clock
        self._changes = changes
        self._cut = cut
        self._desire = desire
        self._gates_seen = gates_seen
        self._ask = ask
        self._said: Desired | None = None
        self._reports: tuple[EndpointReport, ...] = ()
        self._reported_at = float("-inf")
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until cancelled. A round that fails is logged and the next one tries again."""
        try:
            while True:
                revision = self._changes.revision
                try:
                    self.round()
                except Exception:
                    log.exception("control round failed; trying again")
                await asyncio.sleep(PAUSE_SECONDS)
                await self._changes.wait(self._patience(), since=revision)
        finally:
            for task in self._asking.values():
                task.cancel()

    def round(self) -> None:
        """Make one round: everything that is due is done, and what is desired is said if it is news."""
        now = self._clock()
        releases = self._router.releasable(now)
        if overdue := self._router.overdue(now):
            self._cut(overdue)
        self._question(now)
        desired = Desired(releases, self._report(now))
        if desired != self._said:
            self._said = desired
            self._desire(desired)

    def _patience(self) -> float:
        now = self._clock()
        deadline = self._router.next_deadline(now)
        return TICK_SECONDS if deadline is None else min(TICK_SECONDS, max(0.0, deadline - now))

    def _report(self, now: float) -> tuple[EndpointReport, ...]:
        """Return how the endpoints stand; made anew once a tick, because it looks at every one of them."""
        if now >= self._reported_at + TICK_SECONDS:
            self._reported_at = now
            seen = self._gates_seen()
            self._reports = tuple(
                EndpointReport(e.uid, e.server, e.state, e.in_flight, e.uid in seen)
                for e in self._router.status().endpoints
            )
        return self._reports

    def _question(self, now: float) -> None:
        """Ask the engines that the core has questions for, each one at a time."""
        for uid, (address, engine) in self._router.questions(now).items():
            if uid not in self._asking:
                task = asyncio.create_task(self._ask_until_settled(uid, address, engine))
                self._asking[uid] = task
                task.add_done_callback(lambda _, uid=uid: self._asking.pop(uid, None))

    async def _ask_until_settled(self, uid: str, address: str, engine: str) -> None:
        with suppress(asyncio.CancelledError):
            while uid in self._router.questions(self._clock()):
                idle = await self._ask(address, engine)
                if idle is not None:
                    self._router.engine_read(uid, idle=idle, now=self._clock())
                await asyncio.sleep(QUESTION_SECONDS)
