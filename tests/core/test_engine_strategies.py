"""Strategies that go by what engines say: by their rules, between two readings, and while an engine says nothing."""

from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import SHAPES
from tests.core.world import BOOT, MODEL, endpoint, pick, pod, pool, router, see, server, status

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.enginescores import KV_FULL_SECONDS, kv_seconds
from tailrace.core.meter import Work
from tailrace.core.model import (
    EndpointGone,
    EngineAddress,
    ModelSpec,
    Outcome,
    Pick,
    PoolSettings,
    Reading,
    Request,
    Traits,
)
from tailrace.core.pool import Pool
from tailrace.core.readings import INTERVALS
from tailrace.core.router import Router

READINGS = st.builds(
    Reading,
    running=st.integers(0, 6).map(float),
    waiting=st.none() | st.integers(0, 6).map(float),
    slots=st.none() | st.integers(1, 8),
    kv_usage=st.none() | st.floats(0, 1),
    gpu_usage=st.none() | st.floats(0, 1),
    gpu_memory=st.none() | st.floats(0, 1),
    gpu_bytes=st.none() | st.integers(0, 200 * 10**9),
)
STEPS = st.lists(st.tuples(st.sampled_from("pppptttfurs"), st.integers(0, 10**6), READINGS), max_size=60)
"""p: pick; t: an engine tells; s: an engine falls silent; f: free a slot; u, r: an endpoint becomes (un)ready."""


class Told:
    """Endpoints whose engines tell, and notes of what they told, kept apart from the code under test."""

    def __init__(self, shapes: list[tuple[int, int]], strategy: str) -> None:
        self.all = [endpoint(f"e{n}", capacity, memory, n) for n, (capacity, memory) in enumerate(shapes)]
        self.pool = pool(*self.all, strategy=strategy)
        self.notes: dict[Endpoint, tuple[Reading, int]] = {}
        self.active: list[Endpoint] = []

    def step(self, what: str, number: int, reading: Reading) -> bool:
        """Let something else than a pick happen; return whether a pick is wanted."""
        one = self.all[number % len(self.all)]
        if what == "t":
            self.notes[one] = (reading, one.in_flight)
            one.hear(reading)
        elif what == "s":
            self.notes.pop(one, None)
            one.hear(None)
        elif what == "f" and self.active:
            self.active.pop(number % len(self.active)).free()
        elif what in "ur":
            one.on(Event.SEEN_UNREADY if what == "u" else Event.SEEN_READY)
        return what == "p"

    def pick(self) -> tuple[list[Endpoint], Endpoint | None]:
        able = [each for each in self.all if each.available]
        chosen = self.pool.pick(1, request=Request(MODEL, traits=Traits(1)))
        assert (chosen in able) if able else chosen is None
        return able, chosen

    def take(self, chosen: Endpoint) -> None:
        chosen.take()
        self.active.append(chosen)

    def busy(self, each: Endpoint) -> float:
        reading, then = self.notes[each]
        assert reading.running is not None
        return max(reading.running + (reading.waiting or 0) + each.in_flight - then, each.in_flight)

    def slots(self, each: Endpoint) -> int:
        return self.notes[each][0].slots or each.capacity


@given(SHAPES, STEPS)
def test_slot_based_picks_the_most_slots_that_the_engine_says_are_free(
    shapes: list[tuple[int, int]], steps: list[tuple[str, int, Reading]]
) -> None:
    told = Told(shapes, "SlotBased")
    for step in steps:
        if not told.step(*step):
            continue
        able, chosen = told.pick()
        free = {each: told.slots(each) - told.busy(each) for each in able if each in told.notes}
        if chosen is None:
            continue
        if chosen in free:
            assert free[chosen] == max(free.values())
        else:  # silent: never by more than it has for all that is known here
            assert chosen.capacity - chosen.in_flight >= max(free.values(), default=-100)
        told.take(chosen)


def score(told: Told, each: Endpoint) -> float:
    """Return the points of an endpoint whose engine tells, by the formula as it is documented."""
    reading, then = told.notes[each]
    share = min(1.0, told.busy(each) / told.slots(each))
    memory = reading.gpu_memory
    if memory is None and reading.gpu_bytes is not None:
        memory = min(1.0, reading.gpu_bytes / (each.gpu_memory_gb * 1e9))
    elif memory is None:
        memory = reading.kv_usage
    gpu = share if reading.gpu_usage is None else reading.gpu_usage
    queue = (reading.waiting or 0) + max(0, each.in_flight - then)
    return 30 * gpu + 30 * (share if memory is None else memory) + 0.2 * 10 * queue + 20


@given(SHAPES, STEPS)
def test_dynamic_score_picks_the_fewest_points(
    shapes: list[tuple[int, int]], steps: list[tuple[str, int, Reading]]
) -> None:
    told = Told(shapes, "DynamicScore")
    for step in steps:
        if not told.step(*step):
            continue
        able, chosen = told.pick()
        points = {each: score(told, each) for each in able if each in told.notes}
        if chosen in points:
            assert points[chosen] <= min(points.values()) + 0.001
        if chosen is not None:
            told.take(chosen)


@pytest.mark.parametrize("strategy", ["SlotBased", "DynamicScore"])
def test_a_burst_between_two_readings_is_spread(strategy: str) -> None:
    all_of = [endpoint(f"e{n}", 100, 80, n) for n in range(10)]
    made = pool(*all_of, strategy=strategy)
    for each in all_of:
        each.hear(Reading(running=5, waiting=0, kv_usage=0.2))
    for _ in range(50):
        chosen = made.pick(1, request=Request(MODEL, traits=Traits(1)))
        assert chosen is not None
        chosen.take()
    assert [each.in_flight for each in all_of] == [5] * 10


@pytest.mark.parametrize("strategy", ["SlotBased", "DynamicScore"])
def test_what_the_engine_has_counted_is_not_counted_again(strategy: str) -> None:
    ours, theirs = endpoint("ours", 10, 141), endpoint("theirs", 10, 80, 1)
    made = pool(ours, theirs, strategy=strategy)
    for _ in range(4):
        ours.take()
    ours.hear(Reading(running=4, waiting=0))
    theirs.hear(Reading(running=5, waiting=0))
    assert made.pick(1, request=Request(MODEL, traits=Traits(1))) is ours
    ours.free()
    theirs.hear(Reading(running=4, waiting=0))  # one of ours has ended since
    assert made.pick(1, request=Request(MODEL, traits=Traits(1))) is ours


@pytest.mark.parametrize("strategy", ["SlotBased", "DynamicScore"])
def test_what_other_replicas_sent_is_seen_by_the_reading(strategy: str) -> None:
    taken, idle = endpoint("taken", 10, 141), endpoint("idle", 10, 80, 1)
    made = pool(taken, idle, strategy=strategy)
    taken.hear(Reading(running=9, waiting=0))
    idle.hear(Reading(running=0, waiting=0))
    assert made.pick(1, request=Request(MODEL, traits=Traits(1))) is idle


@pytest.mark.parametrize("strategy", ["SlotBased", "DynamicScore"])
def test_a_silent_engine_is_not_taken_for_an_idle_one(strategy: str) -> None:
    all_of = [endpoint(f"e{n}", 10, 80, n) for n in range(5)]
    made = pool(*all_of, strategy=strategy)
    for each in all_of[1:]:
        each.hear(Reading(running=6, waiting=0, kv_usage=0.6))
    for _ in range(10):
        chosen = made.pick(1, request=Request(MODEL, traits=Traits(1)))
        assert chosen is not None
        chosen.take()
    assert all_of[0].in_flight <= 3  # about its part of ten, not all of them
    for each in all_of:
        each.hear(None)
    assert made.pick(1, request=Request(MODEL, traits=Traits(1))) is min(all_of, key=lambda e: e.in_flight)


@pytest.mark.parametrize("strategy", ["SlotBased", "DynamicScore"])
def test_the_best_engine_is_passed_over_while_it_is_full_unready_or_draining(strategy: str) -> None:
    full, unready, draining = endpoint("full", 1), endpoint("unready", added=1), endpoint("draining", added=2)
    last = endpoint("last", added=3)
    made = pool(full, unready, draining, last, strategy=strategy)
    for each in (full, unready, draining):
        each.hear(Reading(running=0, waiting=0, kv_usage=0.0, slots=50))
    last.hear(Reading(running=4, waiting=9, kv_usage=1.0, slots=4))
    full.take()
    unready.on(Event.SEEN_UNREADY)
    draining.on(Event.DRAIN)
    assert made.pick(1, request=Request(MODEL, traits=Traits(1))) is last
    full.free()
    assert made.pick(1, request=Request(MODEL, traits=Traits(1))) is full


def test_an_engine_that_says_more_of_slots_than_its_server_is_believed() -> None:
    few, many = endpoint("few", 10, 141), endpoint("many", 4, 80, 1)
    made = pool(few, many, strategy="SlotBased")
    few.hear(Reading(running=0, slots=2))
    many.hear(Reading(running=0, slots=8))
    assert made.pick(1) is many


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [((100, 0, 0, 0), "memory"), ((0, 100, 0, 0), "gpu"), ((0, 0, 100, 0), "gpu"), ((0, 0, 0, 100), "queue")],
)
def test_the_weights_of_dynamic_score_decide(weights: tuple[int, int, int, int], chosen: str) -> None:
    gpu, memory, queue = endpoint("gpu"), endpoint("memory", added=1), endpoint("queue", added=2)
    made = Pool(PoolSettings("DynamicScore", score_weights=weights), Random(0))
    for each in (gpu, memory, queue):
        made.add(each)
    gpu.hear(Reading(2, 0, gpu_usage=0.9, gpu_memory=0.2))
    memory.hear(Reading(2, 1, gpu_usage=0.1, gpu_memory=0.9))
    queue.hear(Reading(2, 5, gpu_usage=0.2, gpu_memory=0.3))
    for slow in (gpu, memory):
        slow.meter.took(9.0, 1.0, 0.0)
        slow.refresh()
    found = made.pick(1, request=Request(MODEL, traits=Traits(1)))
    assert found is not None
    assert found.uid == chosen


def test_an_endpoint_that_was_slow_is_tried_again_by_dynamic_score() -> None:
    slow, usual = endpoint("slow", 100), endpoint("usual", 100, added=1)
    made = pool(slow, usual, strategy="DynamicScore")
    slow.meter.took(50.0, 1.0, 0.0)
    for each in (slow, usual):
        each.hear(Reading(running=10, waiting=0, gpu_usage=0.5, gpu_memory=0.5))
    usual.take()
    request = Request(MODEL, traits=Traits(1))
    assert made.pick(1, request=request, now=1.0) is usual
    assert made.pick(1, request=request, now=200.0) is slow


# The reading's life, as the router keeps it


def world(strategy: str = "SlotBased", **settings: object) -> Router:
    spec = replace(server(), pool=PoolSettings(strategy, **settings))  # type: ignore[arg-type]
    return router(pod("a"), pod("b"), servers=(spec,))


def test_a_reading_is_unknown_after_three_intervals_without_news() -> None:
    made = world(engine_interval=2.0)
    made.engine_told("a", Reading(running=1), BOOT)
    pick(made, BOOT + INTERVALS * 2.0 - 0.1)
    assert status(made, "a").reading == Reading(running=1)
    pick(made, BOOT + INTERVALS * 2.0)
    assert status(made, "a").reading is None


def test_news_keep_a_reading_alive() -> None:
    made = world()
    for second in range(20):
        made.engine_told("a", Reading(running=second), BOOT + second)
        pick_and_end(made, BOOT + second + 0.9)
    assert status(made, "a").reading == Reading(running=19)
    made.releasable(BOOT + 100)  # the control loop alone takes it back too
    assert status(made, "a").reading is None


def pick_and_end(of: Router, now: float) -> None:
    of.release(pick(of, now).attempt, Outcome.COMPLETED, now)


def test_a_container_that_was_started_anew_is_unknown() -> None:
    made = world()
    made.engine_told("a", Reading(running=1), BOOT)
    see(made, BOOT, pod("a", version=2, incarnation="c2"))
    assert status(made, "a").reading is None


def test_news_of_an_endpoint_that_is_gone_or_not_wanted_are_no_news() -> None:
    made = world()
    made.engine_told("nobody", Reading(running=1), BOOT)
    made.engine_told("a", Reading(running=1), BOOT)
    made.apply(EndpointGone("a"), BOOT)
    made.engine_told("a", Reading(running=1), BOOT)
    made.releasable(BOOT + 10)
    plain = world("RoundRobin")
    plain.engine_told("a", Reading(running=1), BOOT)
    assert status(plain, "a").reading is None


@pytest.mark.parametrize(
    ("strategy", "read", "wanted"),
    [
        ("SlotBased", "WhenNeeded", True),
        ("DynamicScore", "WhenNeeded", True),
        ("LeastEstimatedTTFT", "WhenNeeded", True),
        ("WeightedLeastConnections", "WhenNeeded", False),
        ("RoundRobin", "Always", True),
        ("SlotBased", "Never", False),
    ],
)
def test_engines_are_read_where_the_strategy_or_the_spec_wants_it(strategy: str, read: str, wanted: bool) -> None:
    assert bool(world(strategy, read_engines=read).engines()) is wanted


def test_the_engines_to_read_are_those_of_ready_endpoints_each_at_the_shortest_interval() -> None:
    often = replace(server("x", ModelSpec("often")), pool=PoolSettings("SlotBased", engine_interval=1.0))
    rarely = replace(
        server("s", ModelSpec(MODEL), ModelSpec("often"), created_at=2.0),
        pool=PoolSettings("SlotBased", engine_interval=5.0),
        engine="sglang",
    )
    made = router(pod("a"), pod("late", ready=False), pod("gone", deleted_at=BOOT), servers=(often, rarely))
    assert made.engines() == {"a": EngineAddress("a:8000", "sglang", 1.0)}


# The KV gate of LeastEstimatedTTFT


def send(of: Pool, now: float = 0.0) -> tuple[Endpoint, Work]:
    request = Request(MODEL, 10, traits=Traits(10, streams=True))
    chosen = of.pick(1, request=request, now=now)
    assert chosen is not None
    return chosen, of.notes.open(chosen, request, now)


def test_an_endpoint_whose_kv_cache_is_too_full_is_avoided_and_used_again() -> None:
    full, usual = endpoint("full", 4, 141), endpoint("usual", 4, 80, 1)
    made = pool(full, usual, strategy="LeastEstimatedTTFT")
    assert send(made)[0] is full
    full.hear(Reading(running=1, kv_usage=0.99))
    for _ in range(3):
        assert send(made)[0] is usual
    full.hear(Reading(running=1, kv_usage=0.5))
    assert send(made)[0] is full
    full.hear(Reading(running=1, kv_usage=0.99))
    full.hear(None)  # unknown is no reason to avoid it
    assert send(made)[0] is full


def test_kv_headroom_costs_nothing_up_to_the_limit_and_seconds_at_the_end() -> None:
    one = endpoint("one")
    found = []
    for usage in (None, 0.0, 0.9, 0.95, 1.0):
        one.hear(Reading(running=1, kv_usage=usage))
        found.append(kv_seconds(one, 0.9))
    assert found == [0.0, 0.0, 0.0, pytest.approx(KV_FULL_SECONDS / 2), pytest.approx(KV_FULL_SECONDS)]
    assert kv_seconds(one, 1.0) == 0.0


def test_the_limit_of_the_kv_cache_is_the_pool_s() -> None:
    full, usual = endpoint("full", 4, 141), endpoint("usual", 4, 80, 1)
    made = Pool(PoolSettings("LeastEstimatedTTFT", max_kv_usage=0.5), Random(0))
    made.add(full)
    made.add(usual)
    full.hear(Reading(running=1, kv_usage=0.7))
    assert send(made)[0] is usual


def test_a_router_picks_by_what_engines_tell() -> None:
    made = world()
    made.engine_told("a", Reading(running=4, waiting=2), BOOT)
    made.engine_told("b", Reading(running=1, waiting=0), BOOT)
    answer = made.acquire(Request(MODEL), BOOT)
    assert isinstance(answer, Pick)
    assert answer.uid == "b"
