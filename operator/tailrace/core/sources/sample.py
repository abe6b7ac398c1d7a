"""Endpoints by chance."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Request
from tailrace.core.sources.base import ANY, Source

RANDOM_BITS = 64


class SampleSource(Source):
    """Distinct endpoints in random order, drawn one by one: O(1) an update, O(1) a draw."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._items: list[Endpoint] = []
        self._index: dict[str, int] = {}

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in."""
        if endpoint.uid not in self._index:
            self._index[endpoint.uid] = len(self._items)
            self._items.append(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out: the last one takes its place."""
        index = self._index.pop(endpoint.uid, None)
        if index is None:
            return
        last = self._items.pop()
        if last is not endpoint:
            self._items[index] = last
            self._index[last.uid] = index

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out."""
        self.remove(endpoint)

    def best(self) -> Endpoint | None:
        """Return any one."""
        return next(self.offer(), None)

    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield endpoints by a shuffle that goes only as far as it is read (Fisher and Yates)."""
        items = self._items
        for drawn in range(len(items)):
            # Scaling random() is several times cheaper than randrange(); the bias at these sizes is below 2**-40.
            self._swap(drawn, drawn + int(self._rng.random() * (len(items) - drawn)))
            yield items[drawn]

    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:  # noqa: ARG002 - the same for all
        """Yield what ``offer`` would, of a copy: only the random numbers are used up."""
        items = list(self._items)
        for drawn in range(len(items)):
            other = drawn + int(self._rng.random() * (len(items) - drawn))
            items[drawn], items[other] = items[other], items[drawn]
            yield items[drawn]

    def order(self, endpoint: Endpoint) -> int:  # noqa: ARG002 - chance knows nobody
        """Return a random number: everyone is as likely to come first."""
        return self._rng.getrandbits(RANDOM_BITS)

    def took(self, endpoint: Endpoint) -> None:
        """Nothing to note: chance has no memory."""

    def _swap(self, left: int, right: int) -> None:
        items = self._items
        items[left], items[right] = items[right], items[left]
        self._index[items[left].uid] = left
        self._index[items[right].uid] = right
