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
_MOST_AHEAD = 8
"""More are found faster by the heap than by going through them."""


class _Member:
    """An endpoint, its place among equals, and the one entry of the heap that counts while it is ``inside``.

    While it is ``ahead`` it comes before that entry: at ``order``, or later if its load has grown since.
    """

    __slots__ = ("ahead", "endpoint", "entry", "inside", "order", "place", "tie")

    def __init__(self, endpoint: Endpoint, tie: int) -> None:
        self.place = 0
        self.entry = 0
        self.order = 0
        self.inside = False
        self.ahead = False
        self.endpoint = endpoint
        self.tie = tie


class LeastSource(Source):
    """A lazy heap of what ``order`` says: a key, then the endpoint's place among equals, as one small number.

    Each endpoint has one entry in the heap that counts. Where its order grew, the entry is mended when it surfaces.
    Those whose order fell below their entry are kept ahead of the heap, in a short row: the next requests are likely to
    be theirs, and then their entries are right again and the heap was not touched. The last of too many goes back: it
    gets a new entry, and the old one is dropped when it surfaces.

    Costs O(1) an update and O(log n) a look, amortised; the heap is rebuilt when it holds twice the members, because
    whoever reads further than the first passes them all. A member keeps its place until it is forgotten.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._heap: list[int] = []
        self._ahead: list[_Member] = []
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
            if member.ahead:
                member.ahead = False
                self._ahead.remove(member)

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
        sure = self._enter() if self._fell else None
        heap, ahead = self._heap, self._ahead
        while heap:
            if not ahead or heap[0] < ahead[-1].order:
                found = self._first_of_heap()
                if found is not None:
                    return found
                continue
            member = ahead[-1]
            if member is sure:
                return member.endpoint
            present = (self._order.key(member.endpoint) << PLACE_BITS) | member.place
            if present == member.order:
                return member.endpoint
            self._mend(member, present)
        return None

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield endpoints in order, leaving heap and row as they are."""
        if self._fell:
            self._enter()
        inside, ahead = self._inside, list(self._ahead)
        seen: set[int] = set()
        present: list[int] = []
        for entry in in_order(self._heap):
            while ahead and ahead[-1].order < entry:
                member = ahead.pop()
                seen.add(member.place)
                heappush(present, self._present(member))
            while present and present[0] < entry:
                yield inside[heappop(present) & _PLACE].endpoint
            place = entry & _PLACE
            surfaced = inside.get(place)
            if surfaced is not None and surfaced.entry == entry and place not in seen:
                seen.add(place)
                heappush(present, self._present(surfaced))
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

    def _enter(self) -> _Member | None:
        """Take in what fell since the last look; return the last one that went ahead: its order is the present one."""
        members, order, sure = self._members, self._order, None
        for endpoint in self._fell:
            member = members.get(endpoint)
            if member is None:
                member = self._join(endpoint)
            present = (order.key(endpoint) << PLACE_BITS) | member.place
            if not member.inside:
                member.inside = True
                self._inside[member.place] = member
                self._push(member, present)
            elif present < member.entry:
                self._go_ahead(member, present)
                sure = member
        self._fell.clear()
        return sure

    def _go_ahead(self, member: _Member, present: int) -> None:
        """Put a member that comes before its entry into the row, the first one last."""
        ahead = self._ahead
        if member.ahead:
            ahead.remove(member)
        member.ahead = True
        member.order = present
        at = len(ahead)
        while at and ahead[at - 1].order < present:
            at -= 1
        ahead.insert(at, member)
        if len(ahead) > _MOST_AHEAD:
            self._go_back(ahead.pop(0))

    def _go_back(self, member: _Member) -> None:
        """Have a member that was taken out of the row come when its entry surfaces, a new one if need be."""
        member.ahead = False
        present = self._present(member)
        if present < member.entry:
            self._push(member, present)

    def _mend(self, member: _Member, present: int) -> None:
        """Take the first one out of the row, because its order grew; put it in again if its entry is later still."""
        self._ahead.pop()
        member.ahead = False
        if present < member.entry:
            self._go_ahead(member, present)

    def _first_of_heap(self) -> Endpoint | None:
        """Return the endpoint of the first entry; None: the entry did not say what is, and was mended."""
        entry = self._heap[0]
        member = self._inside.get(entry & _PLACE)
        if member is None or member.entry != entry:
            heappop(self._heap)
            return None
        present = self._present(member)
        if present == entry:
            return member.endpoint
        member.entry = present
        heapreplace(self._heap, present)
        return None

    def _push(self, member: _Member, entry: int) -> None:
        member.entry = entry
        heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._members) + _SLACK:
            self._rebuild()

    def _join(self, endpoint: Endpoint) -> _Member:
        """Give a newcomer its place, and all others theirs if they are many."""
        if len(self._fell) > len(self._members):
            self._join_all()
            return self._members[endpoint]
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
            member.entry = self._present(member)
            member.ahead = False
        self._ahead.clear()
        self._inside = {member.place: member for member in self._members.values() if member.inside}
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap[:] = [member.entry for member in self._inside.values()]
        heapify(self._heap)

    def _present(self, member: _Member) -> int:
        return (self._order.key(member.endpoint) << PLACE_BITS) | member.place
