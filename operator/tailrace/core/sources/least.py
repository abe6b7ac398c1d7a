"""Endpoints in the order of a key that changes with their load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from tailrace.core.endpoint import Endpoint, Rank

_Entry = tuple[int, Rank, int, Endpoint]
_SLACK = 64


class LeastSource:
    """A lazy heap on (key, rank, version): an update pushes a new entry, an outdated one is dropped when it surfaces.

    Costs O(log n) an update and an offer, amortised; the heap is rebuilt when it holds four times the live entries.
    """

    def __init__(self, key: Callable[[Endpoint], int]) -> None:
        self._key = key
        self._heap: list[_Entry] = []
        self._live: dict[str, int] = {}
        self._version = count().__next__

    def update(self, endpoint: Endpoint) -> None:
        """Push the endpoint under its present key."""
        heap = self._heap
        version = self._version()
        self._live[endpoint.uid] = version
        entry = (self._key(endpoint), endpoint.rank, version, endpoint)
        # The entry on top is this endpoint's outdated one after nearly every pick: replace it in one step.
        if heap and heap[0][3] is endpoint:
            heapreplace(heap, entry)
        else:
            heappush(heap, entry)
            if len(heap) > 4 * len(self._live) + _SLACK:
                self._compact()

    def remove(self, endpoint: Endpoint) -> None:
        """Forget the endpoint; its entry is dropped when it surfaces."""
        self._live.pop(endpoint.uid, None)

    def offer(self) -> Iterator[Endpoint]:
        """Yield endpoints by key, then rank."""
        heap, live = self._heap, self._live
        refused: list[_Entry] = []
        try:
            while heap:
                entry = heap[0]
                if live.get(entry[3].uid) == entry[2]:
                    yield entry[3]
                    refused.append(entry)
                heappop(heap)
        finally:
            for entry in refused:
                heappush(heap, entry)

    def took(self, endpoint: Endpoint) -> None:
        """Nothing to note: the load itself is the order."""

    def _compact(self) -> None:
        live = self._live
        self._heap = [entry for entry in self._heap if live.get(entry[3].uid) == entry[2]]
        heapify(self._heap)
