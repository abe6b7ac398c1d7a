"""How long what an engine said of itself counts."""

from __future__ import annotations

from math import inf

from tailrace.core.endpoint import Endpoint
from tailrace.core.leases import Leases
from tailrace.core.model import Reading

INTERVALS = 3
"""After so many without news a reading is unknown: two may be missed, or late."""


class Readings:
    """Gives endpoints their readings and takes them back when they are too old. ``until``: nothing ends before then."""

    def __init__(self) -> None:
        self.until = inf
        self._ends = Leases()
        self._endpoints: dict[str, Endpoint] = {}

    def take(self, endpoint: Endpoint, reading: Reading, interval: float, now: float) -> None:
        """Note what the engine of an endpoint says; it is asked again after ``interval`` seconds."""
        end = now + INTERVALS * interval
        self._endpoints[endpoint.uid] = endpoint
        self._ends.grant(endpoint.uid, end)
        self.until = min(self.until, end)
        endpoint.hear(reading)

    def expire(self, now: float) -> None:
        """Make unknown what is too old by now."""
        for uid in self._ends.expired(now):
            self._endpoints.pop(uid).hear(None)
        end = self._ends.next_end()
        self.until = inf if end is None else end
