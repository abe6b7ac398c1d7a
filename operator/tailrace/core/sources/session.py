"""Endpoints by session: where it is, else where a ring puts it, else the least loaded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import ClassVar

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Request
from tailrace.core.sessions import Sessions
from tailrace.core.sources.base import ANY, Source
from tailrace.core.sources.least import LeastSource
from tailrace.core.sources.ring import RingSource, hash64


class SessionSource(Source):
    """Offers a session's own endpoint first. Costs O(log n).

    A new session is placed by a ring with bounded loads, so that replicas which do not tell each other place it alike;
    a request without a session goes to ``least``. While its endpoint is full, a session overflows, unless ``hard``:
    then nothing is offered. An endpoint that is draining, unready or gone lets its sessions go either way.
    """

    counts_picks: ClassVar[bool] = True

    def __init__(self, sessions: Sessions, least: LeastSource, *, percent: int, hard: bool) -> None:
        self._sessions = sessions
        self._least = least
        self._hard = hard
        self._ring = RingSource(_key, percent)
        self._available: set[Endpoint] = set()
        self._members: set[Endpoint] = set()

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its load fell."""
        self._available.add(endpoint)
        self._members.add(endpoint)
        self._ring.update(endpoint)
        self._least.update(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out until it is updated again."""
        self._available.discard(endpoint)
        self._ring.remove(endpoint)
        self._least.remove(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out for good."""
        self._available.discard(endpoint)
        self._members.discard(endpoint)
        self._ring.forget(endpoint)
        self._least.forget(endpoint)

    def best(self) -> Endpoint | None:
        """Return the least loaded."""
        return self._least.best()

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield the session's endpoint, then where else the request may go; nothing when a hard session must wait."""
        return self._from_home(request, now, self._ring.offer(request, now), self._least.offer(request, now))

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield the same without touching ring and heap."""
        return self._from_home(request, now, self._ring.peek(request, now), self._least.peek(request, now))

    def order(self, endpoint: Endpoint) -> int:
        """Return the endpoint's place among the least loaded: a scan knows no session."""
        return self._least.order(endpoint)

    def took(self, endpoint: Endpoint) -> None:
        """Count the request that the endpoint is about to get."""
        self._ring.took(endpoint)

    def _from_home(self, request: Request, now: float, *others: Iterator[Endpoint]) -> Iterator[Endpoint]:
        home = self._home(request, now)
        if home is not None and home not in self._available:
            if self._hard:
                return
            home = None
        offered: set[Endpoint] = set()
        for endpoint in chain([home] if home else [], *others):
            if endpoint not in offered:
                offered.add(endpoint)
                yield endpoint

    def _home(self, request: Request, now: float) -> Endpoint | None:
        """Return where the session is, if it could be served there, now or later."""
        home = self._sessions.home(request, now)
        return home if home in self._members else None


def _key(request: Request) -> int | None:
    session = "" if request.traits is None else request.traits.session
    return hash64(session.encode()) if session else None
