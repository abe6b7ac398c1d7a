"""What a scrape shows."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tailrace.core.model import (
    EndpointSeen,
    EndpointSpec,
    Grade,
    ModelSpec,
    Outcome,
    Pick,
    PoolQuality,
    PoolSettings,
    Reading,
    Request,
    RouterStatus,
    ServerSeen,
    ServerSpec,
    Spread,
)
from tailrace.core.router import Router
from tailrace.telemetry.metrics import Metrics
from tailrace.telemetry.tally import Histogram, Labels

EMPTY = RouterStatus(servers=(), endpoints=(), in_flight=0, drains=0, outcomes={})


def read(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return read(metrics).get((name, frozenset(labels.items())))


def idle() -> Metrics:
    return Metrics(lambda: EMPTY)


def replica(endpoints: int = 2) -> tuple[Router, Metrics]:
    router = Router("m", booted_at=0.0, rng=Random(1))
    router.apply(ServerSeen(ServerSpec("ns/a", "ns", (ModelSpec("model"),))), 1.0)
    router.apply(ServerSeen(ServerSpec("ns/empty", "ns", (ModelSpec("other"),))), 1.0)
    for i in range(endpoints):
        spec = EndpointSpec(f"uid-{i}", "ns/a", f"pod-{i}", f"10.0.0.{i}:80", 4, ready=True)
        router.apply(EndpointSeen(spec), 1.0)
    return router, Metrics(router.status, leader=lambda: True, watch_age=lambda: 1.5)


def test_requests_are_counted_by_door_model_and_error() -> None:
    metrics = idle()
    for code in ("", "", "502"):
        metrics.started("proxy")
        metrics.ended(door="proxy", model="m", code=code, seconds=0.3, ttft=0.02, itl=0.011)
    metrics.started("route")
    metrics.retried("stale")
    assert value(metrics, "tailrace_request_total", door="proxy", model="m") == 3
    assert value(metrics, "tailrace_request_error_total", door="proxy", model="m", code="502") == 1
    assert value(metrics, "tailrace_request_error_total", door="proxy", model="m", code="") is None
    assert value(metrics, "tailrace_request_running", door="proxy") == 0
    assert value(metrics, "tailrace_request_running", door="route") == 1
    assert value(metrics, "tailrace_retries_total", reason="stale") == 1
    assert value(metrics, "tailrace_request_duration_seconds_bucket", door="proxy", model="m", le="0.25") == 0
    assert value(metrics, "tailrace_request_duration_seconds_bucket", door="proxy", model="m", le="0.5") == 3
    assert value(metrics, "tailrace_request_ttft_seconds_count", door="proxy", model="m") == 3
    assert value(metrics, "tailrace_request_itl_seconds_bucket", door="proxy", model="m", le="0.015") == 3


def test_what_engines_say_is_shown_and_silence_is_not_zero() -> None:
    router, metrics = replica()
    pool = PoolSettings("SlotBased")
    router.apply(ServerSeen(ServerSpec("ns/a", "ns", (ModelSpec("model"),), pool=pool)), 1.0)
    assert b"tailrace_engine" not in metrics.render()
    told = Reading(3, 2, slots=8, kv_usage=0.5, gpu_usage=0.25)
    router.engine_told("uid-0", told, 1.0)
    expected = {"running": 3, "waiting": 2, "slots": 8, "kv_usage_ratio": 0.5, "gpu_usage_ratio": 0.25}
    for name, shown in (expected | {"gpu_memory_ratio": None}).items():
        assert value(metrics, f"tailrace_engine_{name}", server="ns/a", endpoint="pod-0") == shown
        assert value(metrics, f"tailrace_engine_{name}", server="ns/a", endpoint="pod-1") is None
    router.releasable(100.0)
    assert b"tailrace_engine" not in metrics.render()


def test_pools_show_how_evenly_they_are_used() -> None:
    even = PoolQuality("ns/a", ("ns/s",), "RoundRobin", Grade.FAIR, Spread(0.25, 0.5), Spread(0.05, 0.1))
    idle = PoolQuality("ns/b", ("ns/s",), "LeastTokens")
    metrics = Metrics(lambda: replace(EMPTY, pools=(even, idle)))
    assert value(metrics, "tailrace_pool_grade", pool="ns/a", grade="Fair") == 1
    assert value(metrics, "tailrace_pool_strategy", pool="ns/b", strategy="LeastTokens") == 1
    assert value(metrics, "tailrace_pool_cv", pool="ns/a", of="load") == 0.25
    assert value(metrics, "tailrace_pool_imbalance", pool="ns/a", of="latency") == 0.1
    assert value(metrics, "tailrace_pool_cv", pool="ns/b", of="load") is None
    assert b"tailrace_pool_grade" not in idle_pools().render()


def idle_pools() -> Metrics:
    return Metrics(lambda: replace(EMPTY, pools=(PoolQuality("ns/b", (), "RoundRobin"),)))


def test_models_past_the_limit_are_other() -> None:
    metrics = idle()
    for number in range(1500):
        metrics.started("proxy")
        metrics.ended(door="proxy", model=f"m{number}", code=f"c{number}", seconds=1.0)
    shown = metrics.render()
    assert b'tailrace_request_total{door="proxy",model="m999"} 1.0' in shown
    assert b'"m1000"' not in shown
    assert b'tailrace_request_total{door="proxy",model="other"} 500.0' in shown
    assert b'tailrace_request_error_total{code="other",door="proxy",model="other"} 500.0' in shown


def test_endpoints_and_drains_are_read_from_the_core_at_the_scrape() -> None:
    router, metrics = replica()
    pick = router.acquire(Request("model"), 2.0)
    assert isinstance(pick, Pick)
    where = {"server": "ns/a", "endpoint": pick.uid.replace("uid", "pod")}
    assert value(metrics, "tailrace_endpoint_in_flight", **where) == 1
    assert value(metrics, "tailrace_endpoint_capacity", **where) == 4
    assert value(metrics, "tailrace_endpoint_state", **where, state="ready") == 1
    assert value(metrics, "tailrace_ready_endpoints", server="ns/a") == 2
    assert value(metrics, "tailrace_ready_endpoints", server="ns/empty") == 0
    router.drain(pick.uid, 1, 3.0)
    assert value(metrics, "tailrace_drain_active") == 1
    assert value(metrics, "tailrace_ready_endpoints", server="ns/a") == 1
    assert value(metrics, "tailrace_endpoint_state", **where, state="draining") == 1
    assert value(metrics, "tailrace_endpoint_state", **where, state="ready") is None
    router.release(pick.attempt, Outcome.CUT, 4.0)
    assert value(metrics, "tailrace_requests_lost_total", reason="cut") == 1
    assert value(metrics, "tailrace_requests_lost_total", reason="lost") == 0
    assert value(metrics, "tailrace_lease_expired_total") == 0


def test_the_cluster_is_shown_when_there_is_one() -> None:
    _, metrics = replica()
    assert value(metrics, "tailrace_leader") == 1
    assert value(metrics, "tailrace_watch_age_seconds") == 1.5
    assert value(idle(), "tailrace_leader") is None
    assert value(idle(), "tailrace_watch_age_seconds") is None


def test_endpoints_past_the_limit_are_summed_up() -> None:
    router, metrics = replica(endpoints=1003)
    rest = {"server": "other", "endpoint": "other"}
    assert value(metrics, "tailrace_endpoint_capacity", **rest) == 12
    assert value(metrics, "tailrace_endpoint_in_flight", **rest) == 0
    assert value(metrics, "tailrace_endpoint_state", **rest, state="ready") == 3
    assert value(metrics, "tailrace_ready_endpoints", server="ns/a") == 1003
    assert router.in_flight() == 0


def test_the_process_is_shown_too() -> None:
    assert b"process_cpu_seconds_total" in idle().render()


@given(st.lists(st.floats(0, 10), max_size=30))
def test_a_histogram_counts_each_value_in_the_buckets_above_it(values: list[float]) -> None:
    histogram = Histogram((1.0, 2.5, 5.0))
    for number in values:
        histogram.observe(number)
    expected = [("1.0", 1.0), ("2.5", 2.5), ("5.0", 5.0), ("+Inf", float("inf"))]
    assert histogram.buckets() == [(name, sum(v <= bound for v in values)) for name, bound in expected]
    assert abs(histogram.total - sum(values)) < 1e-6


@given(st.lists(st.sampled_from("abcdef")), st.integers(0, 4))
def test_a_label_never_has_more_values_than_its_limit_and_other(values: list[str], limit: int) -> None:
    labels = Labels(limit)
    bound = [labels.bound(v) for v in values]
    assert len(set(bound) - {"other"}) <= limit
    assert all(out in (seen, "other") for seen, out in zip(values, bound, strict=True))
