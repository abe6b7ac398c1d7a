"""Endpoints in turn, each as often as its weight says, and as evenly as that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import ClassVar

from tailrace.core.endpoint import ADDED_BITS, RANK_BITS, Endpoint
from tailrace.core.model import Request
from tailrace.core.sources.base import ANY, Source
from tailrace.core.sources.heaps import in_order

_ADDED = (1 << ADDED_BITS) - 1
_SLACK = 64
_TURN = 1 << 90
"""A turn at weight 1, in steps of virtual time: fine enough that rounding does not show in any number of picks."""


class WeightedRotationSource(Source):
    """Earliest eligible virtual deadline first (Stoica, Abdel-Wahab 1995), a turn being one pick. Costs O(log n).

    Virtual time goes 1 / (sum of weights) forward at each pick. An endpoint's next turn begins where its last one ended
    and lasts 1 / weight: it may be picked once virtual time has come to the beginning, and whose turn ends first is
    picked. So each has, at any moment, its exact share of the picks to within one. Who was away or full begins at the
    present: no turn is made up for. ``weigh`` is asked again when an endpoint is updated; it must be positive.
    """

    counts_picks: ClassVar[bool] = True

    def __init__(self, weigh: Callable[[Endpoint], int]) -> None:
        self._weigh = weigh
        self._now = 0
        self._total = 0
        self._weights: dict[int, int] = {}
        self._begins: dict[int, int] = {}
        self._waiting = _Queue()
        self._eligible = _Queue()

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its weight may have changed."""
        added, weight = endpoint.added, self._weigh(endpoint)
        known = self._weights.get(added)
        self._weights[added] = weight
        if known is not None:
            self._total += weight - known
            return
        self._total += weight
        self._begins[added] = max(self._begins.get(added, 0), self._now)
        self._waiting.push(self._begins[added], endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out until it is updated again."""
        self._total -= self._weights.pop(endpoint.added, 0)
        self._waiting.drop(endpoint)
        self._eligible.drop(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out, and its turn."""
        self.remove(endpoint)
        self._begins.pop(endpoint.added, None)

    def best(self) -> Endpoint | None:
        """Return whose turn it is."""
        self._let_in()
        return self._eligible.first() or self._waiting.first()

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield those whose turn has begun by its end, then the others by its beginning."""
        self._let_in()
        yield from self._eligible.read()
        yield from self._waiting.read()

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield the same, letting nobody in."""
        begun = [e for e in self._waiting.members() if self._begins[e.added] <= self._now]
        ends = {e: _entry(self._begins[e.added] + _TURN // self._weights[e.added], e) for e in begun}
        ends |= {e: self._eligible.entry(e) for e in self._eligible.members()}
        yield from sorted(ends, key=ends.__getitem__)
        yield from sorted((e for e in self._waiting.members() if e not in ends), key=self._waiting.entry)

    def order(self, endpoint: Endpoint) -> int:
        """Return a number by which the endpoint comes before another."""
        begins = self._begins.get(endpoint.added, self._now)
        early = begins <= self._now
        ends = begins + _TURN // self._weigh(endpoint)
        return ((ends if early else begins + (1 << 200)) << RANK_BITS) | endpoint.rank

    def took(self, endpoint: Endpoint) -> None:
        """End the endpoint's turn and begin its next one."""
        added = endpoint.added
        if added not in self._weights:
            return
        begins = self._begins[added]
        # Rounded up, so that turns which begin now, to within the rounding, have begun.
        self._now = max(self._now, begins) + -(-_TURN // self._total)
        self._begins[added] = begins + _TURN // self._weights[added]
        self._eligible.drop(endpoint)
        self._waiting.push(self._begins[added], endpoint)

    def _let_in(self) -> None:
        """Move those whose turn has begun."""
        while (endpoint := self._waiting.first()) is not None and self._begins[endpoint.added] <= self._now:
            self._waiting.drop(endpoint)
            self._eligible.push(self._begins[endpoint.added] + _TURN // self._weights[endpoint.added], endpoint)


class _Queue:
    """Endpoints by a key that does not change, then by rank. Those that were dropped are skipped when they surface."""

    def __init__(self) -> None:
        self._heap: list[int] = []
        self._entries: dict[int, int] = {}
        self._endpoints: dict[int, Endpoint] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, key: int, endpoint: Endpoint) -> None:
        entry = _entry(key, endpoint)
        self._entries[endpoint.added] = entry
        self._endpoints[endpoint.added] = endpoint
        heappush(self._heap, entry)
        if len(self._heap) > 4 * len(self._entries) + _SLACK:
            self._heap[:] = self._entries.values()
            heapify(self._heap)

    def drop(self, endpoint: Endpoint) -> None:
        if self._entries.pop(endpoint.added, None) is not None:
            del self._endpoints[endpoint.added]

    def members(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    def entry(self, endpoint: Endpoint) -> int:
        return self._entries[endpoint.added]

    def first(self) -> Endpoint | None:
        heap, entries = self._heap, self._entries
        while heap:
            added = heap[0] & _ADDED
            if entries.get(added) == heap[0]:
                return self._endpoints[added]
            heappop(heap)
        return None

    def read(self) -> Iterator[Endpoint]:
        last = -1  # an entry may have a copy, made by leaving and coming back
        for entry in in_order(self._heap):
            added = entry & _ADDED
            if entry != last and self._entries.get(added) == entry:
                last = entry
                yield self._endpoints[added]


def _entry(key: int, endpoint: Endpoint) -> int:
    return (key << RANK_BITS) | endpoint.rank
