"""What one replica knows of its endpoints, read from the core at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from tailrace.core.model import EndpointState, EndpointStatus, Outcome, PoolQuality, Reading, RouterStatus
from tailrace.telemetry.tally import OTHER

MAX_ENDPOINTS = 1000
"""Endpoints with series of their own; what is past them is summed up."""

_LOST = (Outcome.LOST, Outcome.CUT)
_WHERE = ("server", "endpoint")


class ReplicaCollector:
    """Yields families from ``status``; ``leader`` and ``watch_age`` (seconds) may answer None: not known here."""

    def __init__(
        self,
        status: Callable[[], RouterStatus],
        *,
        leader: Callable[[], bool | None],
        watch_age: Callable[[], float | None],
    ) -> None:
        self._status = status
        self._leader = leader
        self._watch_age = watch_age

    def collect(self) -> Iterator[Metric]:
        """Yield the families, as prometheus_client wants them at a scrape."""
        status = self._status()
        yield from _endpoints(status.endpoints)
        yield from _engines(status.endpoints[:MAX_ENDPOINTS])
        yield from _pools(status.pools[:MAX_ENDPOINTS])
        yield _ready(status)
        yield GaugeMetricFamily("tailrace_drain_active", "Endpoints that are draining.", value=status.drains)
        yield _waiting(status)
        yield from _ends(status)
        yield from self._cluster()

    def _cluster(self) -> Iterator[Metric]:
        leader, age = self._leader(), self._watch_age()
        if leader is not None:
            yield GaugeMetricFamily("tailrace_leader", "1 on the replica that holds the Lease.", value=int(leader))
        if age is not None:
            yield GaugeMetricFamily("tailrace_watch_age_seconds", "Seconds since the cluster was heard.", value=age)


def _endpoints(endpoints: tuple[EndpointStatus, ...]) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily("tailrace_endpoint_in_flight", "Requests in flight there from here.", labels=_WHERE)
    capacity = GaugeMetricFamily("tailrace_endpoint_capacity", "Requests an endpoint takes at once.", labels=_WHERE)
    state = GaugeMetricFamily(
        "tailrace_endpoint_state", "1 for the state an endpoint is in.", labels=(*_WHERE, "state")
    )
    for endpoint in endpoints[:MAX_ENDPOINTS]:
        where = (endpoint.server, endpoint.name)
        in_flight.add_metric(where, endpoint.in_flight)
        capacity.add_metric(where, endpoint.capacity)
        state.add_metric((*where, endpoint.state.value), 1)
    if rest := endpoints[MAX_ENDPOINTS:]:
        in_flight.add_metric((OTHER, OTHER), sum(e.in_flight for e in rest))
        capacity.add_metric((OTHER, OTHER), sum(e.capacity for e in rest))
        for name, count in Counter(e.state.value for e in rest).items():
            state.add_metric((OTHER, OTHER, name), count)
    yield from (in_flight, capacity, state)


_TOLD: tuple[tuple[str, str, Callable[[Reading], float | None]], ...] = (
    ("running", "Requests that the engine says it works on, from everybody.", lambda told: told.running),
    ("waiting", "Requests that the engine says wait in it.", lambda told: told.waiting),
    ("slots", "Requests that the engine says it works on at once.", lambda told: told.slots),
    ("kv_usage_ratio", "Share of its KV cache that the engine says is in use.", lambda told: told.kv_usage),
    ("gpu_usage_ratio", "GPU utilisation that the engine says.", lambda told: told.gpu_usage),
    ("gpu_memory_ratio", "Share of GPU memory that the engine says is in use.", lambda told: told.gpu_memory),
)


def _engines(endpoints: tuple[EndpointStatus, ...]) -> Iterator[Metric]:
    """Yield what engines say; one that is silent has no sample, because it is not at zero."""
    for name, text, of in _TOLD:
        family = GaugeMetricFamily(f"tailrace_engine_{name}", text, labels=_WHERE)
        for endpoint in endpoints:
            value = None if endpoint.reading is None else of(endpoint.reading)
            if value is not None:
                family.add_metric((endpoint.server, endpoint.name), value)
        if family.samples:
            yield family


def _pools(pools: tuple[PoolQuality, ...]) -> Iterator[Metric]:
    """Yield how evenly pools are used; one where too little goes on to tell has no sample."""
    grade = GaugeMetricFamily("tailrace_pool_grade", "1 for the grade that a pool has.", labels=("pool", "grade"))
    strategy = GaugeMetricFamily(
        "tailrace_pool_strategy", "1 for the strategy at work in a pool.", labels=("pool", "strategy")
    )
    labels = ("pool", "of")
    cv = GaugeMetricFamily("tailrace_pool_cv", "Coefficient of variation between a pool's endpoints.", labels=labels)
    imbalance = GaugeMetricFamily(
        "tailrace_pool_imbalance", "(max - min) / max between a pool's endpoints.", labels=labels
    )
    for pool in pools:
        strategy.add_metric((pool.pool, pool.strategy), 1)
        if pool.grade is not None:
            grade.add_metric((pool.pool, pool.grade.value), 1)
        for of, spread in (("load", pool.load), ("latency", pool.latency)):
            if spread is not None:
                cv.add_metric((pool.pool, of), spread.cv)
                imbalance.add_metric((pool.pool, of), spread.imbalance)
    yield from (family for family in (grade, strategy, cv, imbalance) if family.samples)


def _ready(status: RouterStatus) -> Metric:
    """Return the endpoints that take requests; a server without any is shown as 0, so that alerts see it."""
    ready = Counter({server.key: 0 for server in status.servers})
    ready.update(e.server for e in status.endpoints if e.state is EndpointState.READY)
    family = GaugeMetricFamily("tailrace_ready_endpoints", "Endpoints that take requests.", labels=["server"])
    for server, count in _bounded(ready.items()):
        family.add_metric([server], count)
    return family


def _waiting(status: RouterStatus) -> Metric:
    """Return how many requests wait, by pool; a pool where nobody does has no sample."""
    family = GaugeMetricFamily("tailrace_queue_size", "Requests that wait for a slot.", labels=["pool"])
    for pool, count in _bounded(status.waiting.items()):
        family.add_metric([pool], count)
    return family


def _bounded(counts: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    rest = 0
    for index, (name, count) in enumerate(counts):
        if index < MAX_ENDPOINTS:
            yield name, count
        else:
            rest += count
    if rest:
        yield OTHER, rest


def _ends(status: RouterStatus) -> Iterator[Metric]:
    lost = CounterMetricFamily("tailrace_requests_lost", "Answers that broke off, by why.", labels=["reason"])
    for outcome in _LOST:
        lost.add_metric([outcome.value], status.outcomes.get(outcome.value, 0))
    yield lost
    expired = status.outcomes.get(Outcome.EXPIRED.value, 0)
    yield CounterMetricFamily("tailrace_lease_expired", "Leases that ran out before anyone completed.", value=expired)
