"""Endpoints in turn."""

from __future__ import annotations

from typing import ClassVar

from tailrace.core.endpoint import Endpoint
from tailrace.core.order import Order
from tailrace.core.sources.least import LeastSource


class _ByTurn(Order):
    """Whose last turn is the longest ago; who had none comes before all."""

    def __init__(self) -> None:
        self.turns: dict[int, int] = {}

    def key(self, endpoint: Endpoint) -> int:
        """Return the number of the endpoint's last turn."""
        return self.turns.get(endpoint.added, 0)


class RotationSource(LeastSource):
    """Whoever was not picked for the longest time comes first; new ones before all. Costs O(log n).

    Between two picks of one endpoint every other that stayed available is picked once. An endpoint that was full or
    away keeps its last turn, so it neither misses one nor gets a burst.
    """

    counts_picks: ClassVar[bool] = True

    def __init__(self) -> None:
        by_turn = _ByTurn()
        super().__init__(by_turn)
        self._turns = by_turn.turns
        self._turn = 0

    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out, and its turn."""
        super().forget(endpoint)
        self._turns.pop(endpoint.added, None)

    def took(self, endpoint: Endpoint) -> None:
        """Send the endpoint to the back."""
        self._turn += 1
        self._turns[endpoint.added] = self._turn
