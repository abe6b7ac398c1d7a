"""The queue: requests that wait for a slot, whose turn it is, and who waits no longer.

Rules:

1. Requests of one kind stand in one line, and the one that came first goes first. A kind is what decides who could
   serve them: pool, long or not, adapter, subset and where they have been. So nobody waits behind somebody who waits
   for other endpoints.
2. Of several lines the one whose first has waited longest is served first, slot by slot.
3. Lines of requests that were sent already and have to go elsewhere are served before the others.
4. So many of one pool wait at most; who comes then is refused. Those that were sent already are not: where there is a
   queue at all, a pod that dies costs them a wait and no refusal.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tailrace.core.model import Pick, Refusal, Request
from tailrace.core.refusals import SHUTTING_DOWN, behind, refusal, waited_out
from tailrace.core.registry import Target

Answer = Callable[[Pick | Refusal], None]
"""Told once, from within another call of the router: it must only take note."""

Resolve = Callable[[Request], Target | Refusal]
"""Says where a request that waits leads by now."""

PickFor = Callable[[Target, Request, float], Pick | None]
"""(target, request, now) -> the endpoint it is given, booked; None: there is none for it now."""


class Kind(NamedTuple):
    """What requests of one line have in common; ``rest`` is all of it beyond the pool."""

    pool: str
    rest: Hashable


class Waiting:
    """One request that waits, at most ``until``."""

    __slots__ = ("answer", "kind", "number", "request", "until")

    def __init__(self, request: Request, kind: Kind, until: float, answer: Answer, number: int) -> None:
        self.request = request
        self.kind = kind
        self.until = until
        self.answer = answer
        self.number = number


class Queue:
    """All lines of one router. Entering and leaving cost O(1), serving a pick for each line."""

    def __init__(self, resolve: Resolve, pick: PickFor) -> None:
        self._resolve = resolve
        self._pick = pick
        self._lines: dict[Kind, OrderedDict[int, Waiting]] = {}
        self._of_pool: Counter[str] = Counter()
        self._last = 0
        self._dismissed = False

    def is_before(self, target: Target, request: Request) -> bool:
        """Whether somebody waits in the line in which the request would stand."""
        return bool(self._lines) and _kind(target, request) in self._lines

    def count(self, pool: str) -> int:
        """Return how many wait for an endpoint of the pool."""
        return self._of_pool[pool]

    def counts(self) -> dict[str, int]:
        """Return how many wait, by pool; those of which nobody does are left out."""
        return dict(self._of_pool)

    def enter(self, target: Target, request: Request, now: float, answer: Answer) -> Waiting | Refusal:
        """Put a request at the end of its line; a full or missing queue refuses it."""
        if self._dismissed:
            return SHUTTING_DOWN
        settings, waiting = target.pool.settings, self.count(target.pool_key)
        if waiting >= settings.queue_size and not (request.is_retry and settings.queue_size):
            return behind(target, request, waiting, now) if waiting else refusal(target, request, now)
        self._last += 1
        mine = Waiting(request, _kind(target, request), now + settings.queue_seconds, answer, self._last)
        self._lines.setdefault(mine.kind, OrderedDict())[mine.number] = mine
        self._of_pool[mine.kind.pool] += 1
        return mine

    def leave(self, waiting: Waiting) -> None:
        """Take a request out; one that was answered already is left as it is."""
        line = self._lines.get(waiting.kind)
        if line is None or line.pop(waiting.number, None) is None:
            return
        if not line:
            del self._lines[waiting.kind]
        self._of_pool[waiting.kind.pool] -= 1
        if not self._of_pool[waiting.kind.pool]:
            del self._of_pool[waiting.kind.pool]

    def give_up(self, waiting: Waiting, now: float) -> Pick | Refusal:
        """End the wait of a request that was not answered: any free slot is good enough now."""
        self.leave(waiting)
        target = self._resolve(waiting.request)
        if isinstance(target, Refusal):
            return target
        request = waiting.request._replace(patient=False)
        return self._pick(target, request, now) or waited_out(target, request, self.count(target.pool_key), now)

    def dismiss(self) -> None:
        """Refuse all who wait, and whoever would from now on."""
        self._dismissed = True
        lines, self._lines = self._lines, {}
        self._of_pool.clear()
        for line in lines.values():
            for waiting in line.values():
                waiting.answer(SHUTTING_DOWN)

    def serve(self, now: float) -> None:
        """Give those whose turn it is an endpoint, as far as there are any."""
        if not self._lines:
            return
        heads = [_in_turn(line) for line in self._lines.values()]
        heapify(heads)
        while heads:
            *_, head = heappop(heads)
            if self._serve(head, now) and head.kind in self._lines:
                heappush(heads, _in_turn(self._lines[head.kind]))

    def _serve(self, head: Waiting, now: float) -> bool:
        """Answer the first of a line; return whether there was an answer."""
        target = self._resolve(head.request)
        answer = target if isinstance(target, Refusal) else self._pick(target, head.request, now)
        if answer is None:
            return False
        self.leave(head)
        head.answer(answer)
        return True


def _in_turn(line: OrderedDict[int, Waiting]) -> tuple[bool, int, Waiting]:
    """Return the first of a line, behind what says when it is served; numbers are never the same."""
    number, head = next(iter(line.items()))
    return not head.request.is_retry, number, head


def _kind(target: Target, request: Request) -> Kind:
    """Return which line a request stands in: those of one kind could be served by the same endpoints."""
    pool = target.pool
    session = request.traits.session if pool.settings.hard_sessions and request.traits is not None else ""
    rest = (pool.is_long(request.tokens), target.adapter, request.subset, request.avoid, session)
    return Kind(target.pool_key, rest)
