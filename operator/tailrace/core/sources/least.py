"""Endpoints in an order that changes with their load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from tailrace.core.endpoint import ADDED_BITS, Endpoint
from tailrace.core.model import Request
from tailrace.core.sources.base import ANY
from tailrace.core.sources.heaps import in_order

_ADDED = (1 << ADDED_BITS) - 1
_SLACK = 8


class LeastSource:
    """A lazy heap of what ``order`` says: a key, then the endpoint's rank, as one number.

    Each endpoint has one entry that counts, never above its present order. An order that grew is mended when its entry
    surfaces; one that fell gets a new entry at the next look, and the old one is dropped when it surfaces. Costs
    O(1) an update and O(log n) a look, amortised; the heap is rebuilt when it holds twice the entries that count,
    because whoever reads further than the first passes them all.
    """

    counts_picks = False

    def __init__(self, order: Callable[[Endpoint], int]) -> None:
        self.order = order
        self._heap: list[int] = []
        self._entries: dict[int, int] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._fell: set[Endpoint] = set()

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its order may have fallen."""
        self._fell.add(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out; its entries are dropped when they surface."""
        self._fell.discard(endpoint)
        if self._entries.pop(endpoint.added, None) is not None:
            del self._endpoints[endpoint.added]

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out."""
        self.remove(endpoint)

    def best(self) -> Endpoint | None:
        """Return the endpoint that is first in order."""
        if self._fell:
            self._enter()
        heap, entries = self._heap, self._entries
        while heap:
            entry = heap[0]
            added = entry & _ADDED
            if entries.get(added) != entry:
                heappop(heap)
                continue
            endpoint = self._endpoints[added]
            present = self.order(endpoint)
            if present == entry:
                return endpoint
            entries[added] = present
            heapreplace(heap, present)
        return None

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield endpoints in order, leaving the heap as it is."""
        if self._fell:
            self._enter()
        seen: set[int] = set()
        present: list[int] = []
        for entry in in_order(self._heap):
            while present and present[0] < entry:
                yield self._endpoints[heappop(present) & _ADDED]
            added = entry & _ADDED
            if self._entries.get(added) == entry and added not in seen:
                seen.add(added)
                heappush(present, self.order(self._endpoints[added]))
        while present:
            yield self._endpoints[heappop(present) & _ADDED]

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield endpoints in order, without mending the heap."""
        yield from sorted({*self._endpoints.values(), *self._fell}, key=self.order)

    def took(self, endpoint: Endpoint) -> None:
        """Nothing to note: the load itself makes the order."""

    def _enter(self) -> None:
        """Enter what fell since the last look."""
        heap, entries = self._heap, self._entries
        for endpoint in self._fell:
            entry = self.order(endpoint)
            added = endpoint.added
            known = entries.get(added)
            if known is None:
                self._endpoints[added] = endpoint
            elif known <= entry:
                continue
            entries[added] = entry
            heappush(heap, entry)
        self._fell.clear()
        if len(heap) > 2 * len(entries) + _SLACK:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap[:] = self._entries.values()
        heapify(self._heap)
