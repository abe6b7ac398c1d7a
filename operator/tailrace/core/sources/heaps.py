"""Reading a heap in order without taking it apart."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush


def in_order(heap: list[int]) -> Iterator[int]:
    """Yield the entries of a heap, the smallest first: O(log k) for the k-th. The heap must not change meanwhile.

    No entry is taken off, so a reader who stops early leaves nothing to be put back.
    """
    ahead = [(heap[0], 0)] if heap else []
    while ahead:
        entry, at = heappop(ahead)
        for below in range(2 * at + 1, min(2 * at + 3, len(heap))):
            heappush(ahead, (heap[below], below))
        yield entry
