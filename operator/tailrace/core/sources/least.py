"""Endpoints in an order that changes with their load."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Request
from tailrace.core.order import Order
from tailrace.core.sources.base import ANY, Source
from tailrace.core.sources.heaps import in_order
from tailrace.core.sources.places import PLACE_BITS, Places

_PLACE = (1 << PLACE_BITS) - 1
_SLACK = 8


class _Member:
    """An endpoint, its place among equals, and the one entry of the heap that counts while it is ``inside``."""

    __slots__ = ("endpoint", "entry", "inside", "place", "tie")

    def __init__(self, endpoint: Endpoint, tie: int) -> None:
        self.endpoint = endpoint
        self.tie = tie
        self.place = 0
        self.entry = 0
        self.inside = False


class LeastSource(Source):
    """A lazy heap of what ``order`` says: a key, then the endpoint's place among equals, as one small number.

    Each endpoint has one entry that counts, never above its present order. An order that grew is mended when its entry
    surfaces; one that fell gets a new entry at the next look, and the old one is dropped when it surfaces. Costs
    O(1) an update and O(log n) a look, amortised; the heap is rebuilt when it holds twice the members, because whoever
    reads further than the first passes them all. A member keeps its place until it is forgotten.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._heap: list[int] = []
        self._members: dict[Endpoint, _Member] = {}
        self._inside: dict[int, _Member] = {}
        self._places = Places()
        self._fell: set[Endpoint] = set()

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its order may have fallen."""
        self._fell.add(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out; its entries are dropped when they surface."""
        self._fell.discard(endpoint)
        member = self._members.get(endpoint)
        if member is not None and member.inside:
            member.inside = False
            del self._inside[member.place]

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out, and free its place."""
        self.remove(endpoint)
        member = self._members.pop(endpoint, None)
        if member is not None:
            self._places.leave(member.tie)

    def is_empty(self) -> bool:
        """Whether it knows nobody, available or not."""
        return not (self._members or self._fell)

    def best(self) -> Endpoint | None:
        """Return the endpoint that is first in order."""
        if self._fell:
            self._enter()
        heap, inside, order = self._heap, self._inside, self._order
        while heap:
            entry = heap[0]
            member = inside.get(entry & _PLACE)
            if member is None or member.entry != entry:
                heappop(heap)
                continue
            endpoint = member.endpoint
            present = (order.key(endpoint) << PLACE_BITS) | member.place
            if present == entry:
                return endpoint
            member.entry = present
            heapreplace(heap, present)
        return None

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield endpoints in order, leaving the heap as it is."""
        if self._fell:
            self._enter()
        inside = self._inside
        seen: set[int] = set()
        present: list[int] = []
        for entry in in_order(self._heap):
            while present and present[0] < entry:
                yield inside[heappop(present) & _PLACE].endpoint
            place = entry & _PLACE
            member = inside.get(place)
            if member is not None and member.entry == entry and place not in seen:
                seen.add(place)
                heappush(present, self._entry(member))
        while present:
            yield inside[heappop(present) & _PLACE].endpoint

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield endpoints in order, without mending the heap."""
        yield from sorted({*self._fell, *(member.endpoint for member in self._inside.values())}, key=self._order.of)

    def order(self, endpoint: Endpoint) -> int:
        """Return the endpoint's order."""
        return self._order.of(endpoint)

    def took(self, endpoint: Endpoint) -> None:
        """Nothing to note: the load itself makes the order."""

    def _enter(self) -> None:
        """Enter what fell since the last look."""
        if len(self._fell) > len(self._members):
            self._join_all()
        heap, members, order = self._heap, self._members, self._order
        for endpoint in self._fell:
            member = members.get(endpoint)
            if member is None:
                member = self._join(endpoint)
            entry = (order.key(endpoint) << PLACE_BITS) | member.place
            if not member.inside:
                member.inside = True
                self._inside[member.place] = member
            elif member.entry <= entry:
                continue
            member.entry = entry
            heappush(heap, entry)
        self._fell.clear()
        if len(heap) > 2 * len(members) + _SLACK:
            self._rebuild()

    def _join(self, endpoint: Endpoint) -> _Member:
        """Give a newcomer its place."""
        member = self._members[endpoint] = _Member(endpoint, self._order.tie(endpoint))
        place = self._places.enter(member.tie)
        if place is None:
            self._spread([member])
        else:
            member.place = place
        return member

    def _join_all(self) -> None:
        """Give many newcomers their places at once."""
        newcomers = [_Member(each, self._order.tie(each)) for each in self._fell if each not in self._members]
        self._members.update((each.endpoint, each) for each in newcomers)
        self._spread(newcomers)

    def _spread(self, newcomers: list[_Member]) -> None:
        """Give all members other places, and enter anew those that are inside."""
        places = self._places.spread(each.tie for each in newcomers)
        for member in self._members.values():
            member.place = places[member.tie]
            member.entry = self._entry(member)
        self._inside = {member.place: member for member in self._members.values() if member.inside}
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap[:] = [member.entry for member in self._inside.values()]
        heapify(self._heap)

    def _entry(self, member: _Member) -> int:
        return (self._order.key(member.endpoint) << PLACE_BITS) | member.place
