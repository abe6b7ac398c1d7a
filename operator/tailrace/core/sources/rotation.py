"""Endpoints in turn."""

from __future__ import annotations

from tailrace.core.endpoint import RANK_BITS, Endpoint
from tailrace.core.sources.least import LeastSource


class RotationSource(LeastSource):
    """Whoever was not picked for the longest time comes first; new ones before all. Costs O(log n).

    Between two picks of one endpoint every other that stayed available is picked once. An endpoint that was full or
    away keeps its last turn, so it neither misses one nor gets a burst.
    """

    counts_picks = True

    def __init__(self) -> None:
        super().__init__(self._by_turn)
        self._turns: dict[int, int] = {}
        self._turn = 0

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out, and its turn."""
        super().forget(endpoint)
        self._turns.pop(endpoint.added, None)

    def took(self, endpoint: Endpoint) -> None:
        """Send the endpoint to the back."""
        self._turn += 1
        self._turns[endpoint.added] = self._turn

    def _by_turn(self, endpoint: Endpoint) -> int:
        return (self._turns.get(endpoint.added, 0) << RANK_BITS) | endpoint.rank
