"""Endpoints in an order within classes that cannot be put in one order: of unequal speed, say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Request
from tailrace.core.order import Order
from tailrace.core.sources.base import ANY, Source
from tailrace.core.sources.least import LeastSource


class ClassSource(Source):
    """A heap for each class: the best of every class first, then the second of each.

    For costs like (queue + request) / speed: which endpoint is best depends on the request, but among those of one
    speed it is always the one with the shortest queue. ``class_of`` must have few values; it is asked again when an
    endpoint is updated. Costs O(log n) for each class that is read.
    """

    def __init__(self, class_of: Callable[[Endpoint], int], order: Order) -> None:
        self._order = order
        self._class_of = class_of
        self._classes: dict[int, LeastSource] = {}
        self._at: dict[int, int] = {}

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its class may have changed or its order fallen."""
        now_in, was_in = self._class_of(endpoint), self._at.get(endpoint.added)
        if was_in != now_in:
            if was_in is not None:
                self.remove(endpoint)
            self._at[endpoint.added] = now_in
        members = self._classes.get(now_in)
        if members is None:
            members = self._classes[now_in] = LeastSource(self._order)
        members.update(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out, and out of its class."""
        was_in = self._at.pop(endpoint.added, None)
        if was_in is None:
            return
        members = self._classes[was_in]
        members.forget(endpoint)
        if members.is_empty():
            del self._classes[was_in]

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out."""
        self.remove(endpoint)

    def best(self) -> Endpoint | None:
        """Return the best of some class."""
        return next(self.offer(), None)

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield the best of each class, then the second of each, and so on."""
        classes = list(self._classes.values())
        first = [endpoint for members in classes if (endpoint := members.best()) is not None]
        yield from first
        offers = [members.offer(request, now) for members in classes]
        yield from (endpoint for endpoint in _in_turns(offers) if endpoint not in first)

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield the same without touching the heaps."""
        yield from _in_turns([members.peek(request, now) for members in self._classes.values()])

    def order(self, endpoint: Endpoint) -> int:
        """Return the endpoint's order within its class."""
        return self._order.of(endpoint)

    def took(self, endpoint: Endpoint) -> None:
        """Nothing to note: the figures themselves make the order."""


def _in_turns(offers: list[Iterator[Endpoint]]) -> Iterator[Endpoint]:
    """Yield the first of each, then the second of each, and so on."""
    for row in zip_longest(*offers):
        yield from (endpoint for endpoint in row if endpoint is not None)
