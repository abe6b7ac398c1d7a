"""Requests that wait for a slot: whose turn it is, and who waits no longer.

Rules:

1. Requests of one kind stand in one line, and the one that came first goes first. A kind is what decides who could
   serve them: pool, long or not, adapter, subset and where they have been. So nobody waits behind somebody who waits
   for other endpoints.
2. Of several lines the one whose first has waited longest is served first.
3. Lines of requests that were sent already and have to go elsewhere are served before the others.
4. So many of one pool wait at most; who comes then is refused.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from tailrace.core.model import Pick, Refusal, Request

Answer = Callable[[Pick | Refusal], None]
"""Told once, from within another call of the router: it must only take note."""


class Kind(NamedTuple):
    """What requests of one line have in common; ``rest`` is all of it beyond the pool."""

    pool: str
    rest: Hashable


class Waiting:
    """One request that waits, from ``since`` to ``until``."""

    __slots__ = ("answer", "kind", "number", "request", "since", "until")

    def __init__(self, request: Request, kind: Kind, since: float, until: float, answer: Answer) -> None:
        self.request = request
        self.kind = kind
        self.since = since
        self.until = until
        self.answer = answer
        self.number = 0


class Lines:
    """All lines of one router. Entering, leaving and serving the first of a line cost O(1)."""

    def __init__(self) -> None:
        self._lines: dict[Kind, OrderedDict[int, Waiting]] = {}
        self._of_pool: Counter[str] = Counter()
        self._last = 0

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, kind: Kind) -> bool:
        return kind in self._lines

    def __len__(self) -> int:
        return self._of_pool.total()

    def count(self, pool: str) -> int:
        """Return how many wait for an endpoint of the pool."""
        return self._of_pool[pool]

    def counts(self) -> dict[str, int]:
        """Return how many wait, by pool; those of which nobody does are left out."""
        return dict(self._of_pool)

    def enter(self, waiting: Waiting) -> None:
        """Put a request at the end of its line."""
        self._last += 1
        waiting.number = self._last
        line = self._lines.setdefault(waiting.kind, OrderedDict())
        line[waiting.number] = waiting
        self._of_pool[waiting.kind.pool] += 1

    def leave(self, waiting: Waiting) -> bool:
        """Take a request out; return whether it was still there."""
        line = self._lines.get(waiting.kind)
        if line is None or line.pop(waiting.number, None) is None:
            return False
        if not line:
            del self._lines[waiting.kind]
        self._of_pool[waiting.kind.pool] -= 1
        if not self._of_pool[waiting.kind.pool]:
            del self._of_pool[waiting.kind.pool]
        return True

    def heads(self) -> list[Waiting]:
        """Return the first of each line, in the order in which the lines are to be served."""
        return sorted((next(iter(line.values())) for line in self._lines.values()), key=_turn)

    def head(self, kind: Kind) -> Waiting | None:
        """Return the first of a line, None when nobody stands there."""
        line = self._lines.get(kind)
        return None if line is None else next(iter(line.values()))

    def everybody(self) -> Iterator[Waiting]:
        """Take everybody out, line by line."""
        lines, self._lines = self._lines, {}
        self._of_pool.clear()
        for line in lines.values():
            yield from line.values()


def _turn(waiting: Waiting) -> tuple[bool, float, int]:
    return not waiting.request.is_retry, waiting.since, waiting.number
