"""Leases: attempts of doors that cannot see a request's end live until completed, renewed or expired."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

SLACK = 1000
"""How many entries that mean nothing any more are kept beyond one for each lease."""


class Leases:
    """When each lease ends. Renewing leaves the old entry behind; it is skipped when its time comes."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def grant(self, attempt_id: str, expires_at: float) -> None:
        """Start or renew a lease."""
        self._ends[attempt_id] = expires_at
        heappush(self._heap, (expires_at, attempt_id))
        if len(self._heap) > 2 * len(self._ends) + SLACK:
            self._heap = [(end, each) for each, end in self._ends.items()]
            heapify(self._heap)

    def drop(self, attempt_id: str) -> None:
        """End a lease before its time; unknown ids are no error."""
        self._ends.pop(attempt_id, None)

    def expired(self, now: float) -> list[str]:
        """Return the ids whose lease has ended by now, and forget them."""
        ended: list[str] = []
        if not self._heap or self._heap[0][0] > now:
            return ended  # asked at every pick
        while (first := self._first()) is not None and first[0] <= now:
            heappop(self._heap)
            del self._ends[first[1]]
            ended.append(first[1])
        return ended

    def next_end(self) -> float | None:
        """Return when the next lease ends."""
        first = self._first()
        return None if first is None else first[0]

    def _first(self) -> tuple[float, str] | None:
        while self._heap and self._ends.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0] if self._heap else None
