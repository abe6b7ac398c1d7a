"""The queue: requests that wait for a slot, whose turn it is, and who waits no longer.

Rules:

1. Requests of one kind stand in one line, and the one that came first goes first. A kind is what decides who could
   serve them: pool, long or not, adapter, subset and where they have been. So nobody waits behind somebody who waits
   for other endpoints.
2. Of several lines the one whose first came first is served first, slot by slot.
3. A request that was sent already and has to go elsewhere came when it first came: it goes before all who came later.
   Not before everybody: behind an engine that declines at once, those who may not go there would never have a turn.
4. So many of one pool wait at most; who comes then is refused. Of those that were sent already as many more may wait as
   the pool takes at once: where there is a queue at all, a pod that dies costs them a wait and no refusal. Not any
   number: an engine that declines at once would have all wait that come.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import EndpointState, Pick, Refusal, Request
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
    """One request that waits, at most ``until``; ``came_at`` says when it first came."""

    __slots__ = ("answer", "came_at", "line", "number", "request", "until")

    def __init__(  # noqa: PLR0917 - a record
        self, request: Request, line: Line, came_at: float, until: float, answer: Answer, number: int
    ) -> None:
        self.request = request
        self.line = line
        self.came_at = came_at
        self.until = until
        self.answer = answer
        self.number = number


class Goal(NamedTuple):
    """What lines wait for: any endpoint of a pool, or the one where a hard session is."""

    pool: str
    home: Endpoint | None


class Line:
    """Requests of one kind, by their numbers, in the order in which they came."""

    __slots__ = ("goal", "kind", "requests")

    def __init__(self, kind: Kind, goal: Goal) -> None:
        self.kind = kind
        self.goal = goal
        self.requests: OrderedDict[int, Waiting] = OrderedDict()


class Queue:
    """All lines of one router. Entering and leaving cost O(1), serving a pick for each line that a free slot is for.

    Hard sessions have a line each, so there may be thousands. They are found by their endpoint.
    """

    def __init__(self, resolve: Resolve, pick: PickFor) -> None:
        self._resolve = resolve
        self._pick = pick
        self._lines: dict[Kind, Line] = {}
        self._goals: dict[Goal, dict[Kind, Line]] = {}
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

    def enter(
        self, target: Target, request: Request, now: float, answer: Answer, came_at: float | None = None
    ) -> Waiting | Refusal:
        """Put a request at the end of its line; a full or missing queue refuses it."""
        if self._dismissed:
            return SHUTTING_DOWN
        settings, waiting = target.pool.settings, self.count(target.pool_key)
        if waiting >= settings.queue_size and waiting >= _most(target, request):
            return behind(target, request, waiting, now) if waiting else refusal(target, request, now)
        self._last += 1
        line = self._line(target, request, now)
        since, until = now if came_at is None else came_at, now + settings.queue_seconds
        mine = line.requests[self._last] = Waiting(request, line, since, until, answer, self._last)
        self._of_pool[target.pool_key] += 1
        return mine

    def _line(self, target: Target, request: Request, now: float) -> Line:
        """Return the line of such requests, a new one where nobody stands."""
        kind = _kind(target, request)
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = Line(kind, Goal(target.pool_key, target.pool.home(request, now)))
            self._goals.setdefault(line.goal, {})[kind] = line
        return line

    def leave(self, waiting: Waiting) -> None:
        """Take a request out; one that was answered already is left as it is."""
        line = waiting.line
        if line.requests.pop(waiting.number, None) is None:
            return
        if not line.requests:
            self._close(line)
        self._of_pool[line.kind.pool] -= 1
        if not self._of_pool[line.kind.pool]:
            del self._of_pool[line.kind.pool]

    def _close(self, line: Line) -> None:
        del self._lines[line.kind]
        del self._goals[line.goal][line.kind]
        if not self._goals[line.goal]:
            del self._goals[line.goal]

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
        for line in list(self._lines.values()):
            for waiting in list(line.requests.values()):
                self.leave(waiting)
                waiting.answer(SHUTTING_DOWN)

    def serve(self, now: float, at: Endpoint | None = None) -> None:
        """Give those whose turn it is an endpoint, as far as there are any; ``at``: only there is anything new."""
        if not self._lines:
            return
        near = list(self._goals) if at is None else _near(at)
        heads = [_in_turn(line) for goal in near for line in self._at(goal, now, at)]
        heapify(heads)
        full: set[Goal] = set()
        served = False
        while heads:
            *_, head = heappop(heads)
            line = head.line
            if line.goal in full:
                continue
            if served and not self._has_room(head, now, at):
                full.add(line.goal)
            elif self._serve(head, now):
                served = True
                if line.requests:
                    heappush(heads, _in_turn(line))

    def _at(self, goal: Goal, now: float, at: Endpoint | None) -> Collection[Line]:
        """Return the lines of a goal, none when there is no use in a look at each."""
        lines = self._goals.get(goal)
        some = None if lines is None else _in_turn(next(iter(lines.values())))[-1]
        return lines.values() if lines is not None and some is not None and self._has_room(some, now, at) else ()

    def _has_room(self, head: Waiting, now: float, at: Endpoint | None) -> bool:
        """Whether there may be an endpoint for those of the head's goal, or nobody serves them any more."""
        target = self._resolve(head.request)
        if isinstance(target, Refusal):
            return True
        only = at or _ready(head.line.goal.home)
        return target.pool.has_use(target.pool.endpoints.values() if only is None else (only,), now)

    def _serve(self, head: Waiting, now: float) -> bool:
        """Answer the first of a line; return whether there was an answer."""
        target = self._resolve(head.request)
        answer = target if isinstance(target, Refusal) else self._pick(target, head.request, now)
        if answer is None:
            return False
        self.leave(head)
        head.answer(answer)
        return True


def _most(target: Target, request: Request) -> int:
    """Return how many may wait before a request is refused."""
    size = target.pool.settings.queue_size
    return size + sum(each.limit for each in target.pool.endpoints.values()) if size and request.is_retry else size


def _ready(home: Endpoint | None) -> Endpoint | None:
    """Return where a session is, None when it may go elsewhere."""
    return home if home is not None and home.state is EndpointState.READY else None


def _near(endpoint: Endpoint) -> list[Goal]:
    """Return the places at which one endpoint serves."""
    return [Goal(pool, home) for pool in endpoint.served for home in (None, endpoint)]


def _in_turn(line: Line) -> tuple[float, int, Waiting]:
    """Return the first of a line, behind what says when it is served; numbers are never the same."""
    number, head = next(iter(line.requests.items()))
    return head.came_at, number, head


def _kind(target: Target, request: Request) -> Kind:
    """Return which line a request stands in: those of one kind could be served by the same endpoints."""
    pool = target.pool
    session = request.traits.session if pool.settings.hard_sessions and request.traits is not None else ""
    rest = (pool.is_long(request.tokens), target.adapter, request.subset, request.avoid, session)
    return Kind(target.pool_key, rest)
