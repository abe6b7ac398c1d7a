"""Endpoints in turn."""

from __future__ import annotations

from tailrace.core.endpoint import Endpoint
from tailrace.core.sources.least import LeastSource


class RotationSource(LeastSource):
    """Earliest turn first; who was picked goes one turn back. Costs O(log n).

    This is earliest-deadline-first scheduling with equal weights: between two picks of one endpoint every other
    available endpoint is picked. An endpoint that was away joins the next turn, so it gets no burst.
    """

    def __init__(self) -> None:
        super().__init__(lambda endpoint: self._turns[endpoint.uid])
        self._turns: dict[str, int] = {}
        self._now = 0

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in for the next turn; one that is in keeps its turn."""
        if endpoint.uid not in self._turns:
            self._turns[endpoint.uid] = self._now + 1
            super().update(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out."""
        self._turns.pop(endpoint.uid, None)
        super().remove(endpoint)

    def took(self, endpoint: Endpoint) -> None:
        """Send the endpoint one turn back."""
        self._now = self._turns[endpoint.uid]
        self._turns[endpoint.uid] += 1
        super().update(endpoint)
