"""The endpoints that remember the most of a prompt."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Request
from tailrace.core.order import Order
from tailrace.core.prefill import Prefills
from tailrace.core.sources.base import ANY, Source


class HolderSource(Source):
    """Offers the latest holders of the deepest known block of a request's prompt, the least in ``order`` first.

    At most a few, whatever the number of endpoints; none when nobody remembers anything. Costs O(log blocks).
    """

    def __init__(self, notes: Prefills, order: Order) -> None:
        self._order = order
        self._notes = notes
        self._available: set[Endpoint] = set()

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in."""
        self._available.add(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out until it is updated again."""
        self._available.discard(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out for good."""
        self._available.discard(endpoint)

    def best(self) -> Endpoint | None:
        """Return None: without a prompt nobody remembers anything of it."""
        return None

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield the holders, after counting as read what should have been read by now."""
        self._notes.tick(now)
        if request.traits is None:
            return
        holders = self._notes.index.holders(request.traits.chain)
        yield from sorted((each for each in holders if each in self._available), key=self._order.of)

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield the holders; what should have been read by now counts as read, as at any look."""
        yield from self.offer(request, now)

    def order(self, endpoint: Endpoint) -> int:
        """Return the endpoint's order among holders."""
        return self._order.of(endpoint)

    def took(self, endpoint: Endpoint) -> None:
        """Nothing to note: what an endpoint will remember is noted when the request is booked."""
