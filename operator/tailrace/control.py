"""The loop that makes true what the core says should be: cuts, questions to engines, words to the child."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from tailrace.changes import Changes
from tailrace.core.drain import Mark
from tailrace.core.model import EndpointState, Grade, PoolQuality
from tailrace.core.router import Router
from tailrace.link import Desired, EndpointReport

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""Counters reach the child at least this often; drains do at once."""

PAUSE_SECONDS = 0.02
"""Between two rounds: a burst of changes is one round."""

QUESTION_SECONDS = 1.0
JUDGE_SECONDS = 5.0

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
        mark: Callable[[str, Mark], None] | None = None,
        elsewhere: Callable[[str], int] = lambda _: 0,
    ) -> None:
        """``mark`` makes a mark durable, and may be told again; None: nobody else needs to see it.

        ``elsewhere`` is what other replicas have in flight at an endpoint, as far as known: for status only.
        """
        self._router = router
        self._clock = clock
        self._changes = changes
        self._cut = cut
        self._desire = desire
        self._gates_seen = gates_seen
        self._ask = ask
        self._mark = mark
        self._elsewhere = elsewhere
        self._marked_at = float("-inf")
        self._said: Desired | None = None
        self._reports: tuple[EndpointReport, ...] = ()
        self._reported_at = float("-inf")
        self._judged_at = float("-inf")
        self._grades: tuple[tuple[str, str], ...] = ()
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until cancelled. What fails is logged and tried again a tick later."""
        try:
            while True:
                revision = self._changes.revision
                if self.round():
                    await asyncio.sleep(PAUSE_SECONDS)
                    await self._changes.wait(self._patience(), since=revision)
                else:
                    await asyncio.sleep(TICK_SECONDS)
        finally:
            await self._ask_no_more()

    def round(self) -> bool:
        """Do everything that is due, and say what is desired if it is news. Return whether all of it went well.

        The parts fail on their own: a door that cannot cut must not keep a finalizer in place.
        """
        now = self._clock()
        parts = (self._judge, self._report, self._say, self._cut_overdue, self._question, self._make_durable)
        return False not in [_went_well(part, now) for part in parts]

    def _say(self, now: float) -> None:
        releases = self._router.releasable(now)
        desired = Desired(releases, self._reports, self._router.members_wanted, self._grades)
        if desired != self._said:
            self._desire(desired)
            self._said = desired

    def _cut_overdue(self, now: float) -> None:
        if overdue := self._router.overdue(now):
            self._cut(overdue)

    def _make_durable(self, now: float) -> None:
        """Have pods marked that drain for a mark which only replicas know; again every tick until it is seen there."""
        if self._mark is None or now < self._marked_at + TICK_SECONDS:
            return
        self._marked_at = now
        for uid, mark in self._router.unmarked(now):
            self._mark(uid, mark)

    def _patience(self) -> float:
        now = self._clock()
        deadline = self._router.next_deadline(now)
        return TICK_SECONDS if deadline is None else min(TICK_SECONDS, max(0.0, deadline - now))

    def _report(self, now: float) -> None:
        """Note how the endpoints stand; anew once a tick, because it looks at every one of them."""
        if now < self._reported_at + TICK_SECONDS:
            return
        self._reported_at = now
        seen, known = self._gates_seen(), {report.uid: report for report in self._reports}
        self._reports = tuple(
            _standing(known.get(uid), uid, server, state, in_flight + self._elsewhere(uid), gate_seen=uid in seen)
            for uid, server, state, in_flight in self._router.standings()
        )

    def _judge(self, now: float) -> None:
        """Have a look at how evenly pools are used, now and then; say which have another strategy since."""
        if now < self._judged_at + JUDGE_SECONDS:
            return
        self._judged_at = now
        before = {each.pool: each.strategy for each in self._router.quality()}
        self._router.judge(now)
        found = self._router.quality()
        for each in found:
            if each.strategy != before.get(each.pool):
                log.warning("pool %s: the strategy is %s now, was %s", each.pool, each.strategy, before.get(each.pool))
        self._grades = _worst(found)

    def _question(self, now: float) -> None:
        """Ask the engines that the core has questions for, each one at a time."""
        for uid, (address, engine) in self._router.questions(now).items():
            if uid not in self._asking:
                task = asyncio.create_task(self._ask_until_settled(uid, address, engine))
                self._asking[uid] = task
                task.add_done_callback(partial(self._asked, uid))

    def _asked(self, uid: str, _: asyncio.Task[None]) -> None:
        del self._asking[uid]

    async def _ask_until_settled(self, uid: str, address: str, engine: str) -> None:
        while uid in self._router.questions(self._clock()):
            try:
                idle = await self._ask(address, engine)
            except Exception:
                log.exception("could not ask the engine at %s whether it is idle; asking again", address)
            else:
                self._take_answer(uid, idle=idle)
            await asyncio.sleep(QUESTION_SECONDS)

    def _take_answer(self, uid: str, *, idle: bool | None) -> None:
        if idle is not None:
            self._router.engine_read(uid, idle=idle, now=self._clock())

    async def _ask_no_more(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def _standing(
    known: EndpointReport | None, uid: str, server: str, state: EndpointState, in_flight: int, *, gate_seen: bool
) -> EndpointReport:
    """Return how an endpoint stands: as is known where nothing has changed, because thousands take long to make."""
    now = (server, state, in_flight, gate_seen)
    if known is not None and (known.server, known.state, known.in_flight, known.gate_seen) == now:
        return known
    return EndpointReport(uid, *now)


def _worst(pools: Iterable[PoolQuality]) -> tuple[tuple[str, str], ...]:
    """Return the worst grade of each server's pools."""
    order = list(Grade)
    found: dict[str, Grade] = {}
    for server, grade in ((server, each.grade) for each in pools if each.grade for server in each.servers):
        found[server] = max(grade, found.get(server, grade), key=order.index)
    return tuple((server, grade.value) for server, grade in sorted(found.items()))


def _went_well(part: Callable[[float], None], now: float) -> bool:
    try:
        part(now)
    except Exception:
        log.exception("a part of the control round failed; trying again")
        return False
    return True
