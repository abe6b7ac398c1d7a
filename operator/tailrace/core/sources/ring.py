"""Consistent hashing with bounded loads: the same key goes to the same endpoint unless that has too much already."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import ClassVar

from tailrace.core.endpoint import ADDED_BITS, Endpoint
from tailrace.core.model import EndpointState, Request
from tailrace.core.sources.base import ANY, Source

POINTS = 32
"""How many points on the ring an endpoint has: each gets its part of the keys to within a fifth or so."""
MOST_STEPS = 64
"""How many endpoints are asked before the ring gives up: below the bound are many, so nearly always the first few."""

_ADDED = (1 << ADDED_BITS) - 1
_READY = EndpointState.READY


def hash64(content: bytes) -> int:
    """Return a hash that every process and every machine agrees on."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")


class RingSource(Source):
    """Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads" (2018), for unequal capacities.

    Each endpoint has ``POINTS`` points on a ring of hashes. A request's ``key`` goes to the endpoint of the next point
    that, with this request, would not be above ``percent`` of the mean load ratio. None for a request without a key.
    Points depend on uids alone, so every replica has the same ring. Costs O(log n) and a step for each endpoint that is
    too full; the ring is sorted anew at the first look after endpoints came or went for good.
    """

    counts_picks: ClassVar[bool] = True

    def __init__(self, key: Callable[[Request], int | None], percent: int) -> None:
        self._key = key
        self._percent = percent
        self._points: list[int] = []
        self._sorted = True
        self._endpoints: dict[int, Endpoint] = {}
        self._available: set[int] = set()
        self._loads = _Loads()

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its load fell."""
        added = endpoint.added
        if added not in self._endpoints:
            self._endpoints[added] = endpoint
            self._points += _points(endpoint)
            self._sorted = False
        self._available.add(added)
        self._loads.see(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Pass the endpoint over until it is updated again. One that is only full counts in the mean."""
        self._available.discard(endpoint.added)
        if endpoint.state is _READY and endpoint.added in self._endpoints:
            self._loads.see(endpoint)
        else:
            self._loads.drop(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Take the endpoint's points off the ring."""
        self._available.discard(endpoint.added)
        self._loads.drop(endpoint)
        if self._endpoints.pop(endpoint.added, None) is not None:
            self._points = [point for point in self._points if point & _ADDED != endpoint.added]

    def best(self) -> Endpoint | None:
        """Return None: without a request there is no key."""
        return None

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - no time passes here
        """Yield the endpoints from the request's key on that are not too full; few, or none."""
        if not self._sorted:
            self._points.sort()
            self._sorted = True
        return self._below_bound(request, self._points)

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - no time passes here
        """Yield the same, on a ring that is sorted aside."""
        return self._below_bound(request, sorted(self._points))

    def order(self, endpoint: Endpoint) -> int:
        """Return the endpoint's rank: a scan has no key."""
        return endpoint.rank

    def took(self, endpoint: Endpoint) -> None:
        """Count the request that the endpoint is about to get."""
        if endpoint.added in self._endpoints:
            self._loads.see(endpoint, more=1)

    def _below_bound(self, request: Request, points: list[int]) -> Iterator[Endpoint]:
        key = self._key(request)
        if key is None:
            return
        for endpoint in self._from(key, points):
            if endpoint.added in self._available and self._loads.allow(endpoint, self._percent):
                yield endpoint

    def _from(self, key: int, points: list[int]) -> Iterator[Endpoint]:
        """Yield the endpoints round the ring, each once, up to a number."""
        at = bisect_left(points, key << ADDED_BITS)
        seen: set[int] = set()
        for step in range(len(points)):
            added = points[(at + step) % len(points)] & _ADDED
            if added not in seen:
                seen.add(added)
                yield self._endpoints[added]
                if len(seen) == MOST_STEPS:
                    return


class _Loads:
    """In-flight and capacity of all endpoints seen, summed as they are seen.

    A pick through another pool is noticed at the endpoint's next change: the mean may be a few requests late.
    """

    def __init__(self) -> None:
        self._each: dict[int, tuple[int, int]] = {}
        self._in_flight = 0
        self._capacity = 0

    def see(self, endpoint: Endpoint, more: int = 0) -> None:
        """Note the endpoint's load, and ``more`` that comes now."""
        self.drop(endpoint)
        load = self._each[endpoint.added] = (endpoint.in_flight + more, endpoint.limit)
        self._in_flight += load[0]
        self._capacity += load[1]

    def drop(self, endpoint: Endpoint) -> None:
        """Count the endpoint no more."""
        in_flight, capacity = self._each.pop(endpoint.added, (0, 0))
        self._in_flight -= in_flight
        self._capacity -= capacity

    def allow(self, endpoint: Endpoint, percent: int) -> bool:
        """Whether one more keeps the endpoint's load within that percentage of its part of all, rounded up."""
        part = percent * endpoint.limit * (self._in_flight + 1)
        return endpoint.in_flight + 1 <= -(-part // (100 * self._capacity))


def _points(endpoint: Endpoint) -> list[int]:
    uid = endpoint.uid.encode()
    return [(hash64(b"%d %b" % (number, uid)) << ADDED_BITS) | endpoint.added for number in range(POINTS)]
