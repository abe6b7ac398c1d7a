"""The metrics of one replica: what its doors observe and what its core knows, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from tailrace.core.model import RouterStatus
from tailrace.telemetry.replica import ReplicaCollector
from tailrace.telemetry.requests import RequestTally


class Metrics(RequestTally):
    """The observer of the doors and all that a scrape shows. Used on the event loop only.

    ``leader`` and ``watch_age`` (seconds) may answer None: there is no cluster, or nothing was heard of it yet.
    """

    def __init__(
        self,
        status: Callable[[], RouterStatus],
        *,
        leader: Callable[[], bool | None] = lambda: None,
        watch_age: Callable[[], float | None] = lambda: None,
    ) -> None:
        super().__init__()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._registry.register(ReplicaCollector(status, leader=leader, watch_age=watch_age))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the metrics as ``/metrics`` answers them."""
        return generate_latest(self._registry)
