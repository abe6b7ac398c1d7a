"""How even a pool is: grades, when they are told, and what a pool that stays Poor does about it."""

from dataclasses import replace
from itertools import pairwise
from math import isclose

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.world import BOOT, MODEL, pod, router, see, server

from tailrace.core.model import Grade, ModelSpec, Outcome, Pick, PoolQuality, PoolSettings, Request, ServerSeen
from tailrace.core.quality import HALF_LIFE_SECONDS, HOLD_SECONDS, WARM_SECONDS, HeldGrade, grade_of, spread
from tailrace.core.router import Router

STEP = 5.0
LONG = WARM_SECONDS + HOLD_SECONDS + 2 * STEP
"""Until a grade that never changes is told."""
PODS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("cv", "grade"),
    [
        (0.0, Grade.EXCELLENT),
        (0.0999, Grade.EXCELLENT),
        (0.1, Grade.GOOD),
        (0.1999, Grade.GOOD),
        (0.2, Grade.FAIR),
        (0.2999, Grade.FAIR),
        (0.3, Grade.POOR),
        (5.0, Grade.POOR),
    ],
)
def test_the_grade_is_by_the_coefficient_of_variation(cv: float, grade: Grade) -> None:
    assert grade_of(cv) is grade


def test_spread_is_deviation_over_mean_and_range_over_maximum() -> None:
    assert spread([2.0, 4.0]) == pytest.approx((1 / 3, 0.5))
    assert spread([0.0, 0.0]) == (0.0, 0.0)
    assert spread([7.0]) == (0.0, 0.0)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30), st.floats(0.01, 100))
def test_spread_does_not_depend_on_the_unit(values: list[float], factor: float) -> None:
    one, other = spread(values), spread([value * factor for value in values])
    assert isclose(one.cv, other.cv, rel_tol=1e-6, abs_tol=1e-6)
    assert isclose(one.imbalance, other.imbalance, rel_tol=1e-6, abs_tol=1e-6)


def test_a_grade_changes_only_after_another_one_has_stood_for_a_while() -> None:
    held = HeldGrade()
    told = []
    gusts = [Grade.GOOD] * 13 + [Grade.POOR] * 11 + [Grade.GOOD] + [Grade.POOR] * 14
    for step, grade in enumerate(gusts):
        held.see(grade, step * STEP)
        told.append(held.grade)
    assert told == [None] * 12 + [Grade.GOOD] * 25 + [Grade.POOR] * 2


@given(st.lists(st.sampled_from([None, *Grade]), max_size=200))
def test_a_grade_is_told_at_most_once_in_the_time_it_must_have_stood(grades: list[Grade | None]) -> None:
    held = HeldGrade()
    changes = []
    for step, grade in enumerate(grades):
        before = held.grade
        held.see(grade, step * STEP)
        if held.grade is not before:
            changes.append(step * STEP)
            assert grades[max(0, step - int(HOLD_SECONDS / STEP)) : step + 1].count(grade) > HOLD_SECONDS / STEP
    assert all(later - earlier >= HOLD_SECONDS for earlier, later in pairwise(changes))


class World:
    """A router with three pods, and a clock; requests go where the test wants them."""

    def __init__(self, **settings: object) -> None:
        spec = PoolSettings("RoundRobin", **settings)  # type: ignore[arg-type]
        self.router: Router = router(*(pod(uid, capacity=100) for uid in PODS), servers=(replace(server(), pool=spec),))
        self.now = BOOT
        self.picks: dict[str, list[Pick]] = {uid: [] for uid in PODS}

    def load(self, **wanted: int) -> None:
        """Have so many in flight at each pod."""
        for uid, count in wanted.items():
            held = self.picks[uid]
            while len(held) < count:
                others = frozenset(PODS) - {uid}
                answer = self.router.acquire(Request(MODEL, avoid=others), self.now)
                assert isinstance(answer, Pick)
                held.append(answer)
            while len(held) > count:
                self.router.release(held.pop().attempt, Outcome.CLIENT_GONE, self.now)

    def answer(self, uid: str, seconds: float, count: int = 10) -> None:
        """Let the pod answer requests that began so many seconds ago."""
        for _ in range(count):
            answer = self.router.acquire(Request(MODEL, avoid=frozenset(PODS) - {uid}), self.now - seconds)
            assert isinstance(answer, Pick)
            self.router.release(answer.attempt, Outcome.COMPLETED, self.now)

    def wait(self, seconds: float, **latencies: float) -> None:
        for _ in range(int(seconds / STEP)):
            self.now += STEP
            for uid, latency in latencies.items():
                self.answer(uid, latency)
            self.router.judge(self.now)

    def quality(self) -> PoolQuality:
        (found,) = self.router.quality()
        return found


@pytest.mark.parametrize(
    ("loads", "grade"),
    [
        ((50, 50, 50), Grade.EXCELLENT),
        ((50, 60, 70), Grade.GOOD),
        ((40, 60, 70), Grade.FAIR),
        ((10, 10, 60), Grade.POOR),
    ],
)
def test_a_pool_is_graded_by_how_even_its_load_is(loads: tuple[int, int, int], grade: Grade) -> None:
    world = World()
    world.load(**dict(zip(PODS, loads, strict=True)))
    world.wait(LONG)
    found = world.quality()
    assert (found.pool, found.servers, found.strategy, found.grade) == ("ns/llama", ("ns/s",), "RoundRobin", grade)
    assert found.load == pytest.approx(spread([float(load) for load in loads]))
    assert found.latency is None


def test_load_is_compared_by_capacity() -> None:
    world = World()
    see(world.router, BOOT, pod("a", capacity=50, version=2))
    world.load(a=20, b=40, c=40)
    world.wait(LONG)
    assert world.quality().grade is Grade.EXCELLENT


def test_a_pool_whose_answers_take_unequally_long_is_graded_by_that() -> None:
    world = World()
    world.load(a=20, b=20, c=20)
    world.wait(LONG, a=1.0, b=1.0, c=3.0)
    found = world.quality()
    assert found.load is not None
    assert found.load.cv < 0.01
    assert found.latency == pytest.approx(spread([1.0, 1.0, 3.0]))
    assert found.grade is Grade.POOR


def test_latency_follows_within_about_a_minute() -> None:
    world = World()
    world.wait(LONG, a=1.0, b=1.0, c=3.0)
    world.wait(4 * HALF_LIFE_SECONDS, a=1.0, b=1.0, c=1.0)
    found = world.quality()
    assert found.latency is not None
    assert found.latency.cv < 0.1


def test_a_pool_with_next_to_nothing_to_do_has_no_grade() -> None:
    world = World()
    world.load(a=2)
    world.wait(2 * LONG)
    assert world.quality() == PoolQuality("ns/llama", ("ns/s",), "RoundRobin")


def test_one_endpoint_alone_has_no_grade() -> None:
    world = World()
    see(world.router, BOOT, pod("b", ready=False, version=2), pod("c", deleted_at=BOOT, version=2))
    world.load(a=50)
    world.wait(LONG, a=1.0)
    assert world.quality().grade is None


def test_an_endpoint_that_has_just_come_or_is_going_is_not_compared() -> None:
    world = World()
    world.load(a=50, b=50, c=50)
    world.wait(LONG)
    see(world.router, world.now, pod("c", capacity=100, deleted_at=world.now, version=2), pod("new", capacity=100))
    world.load(c=0)
    world.wait(WARM_SECONDS - STEP)
    assert world.quality().load == pytest.approx((0.0, 0.0))
    world.wait(2 * STEP)
    found = world.quality().load
    assert found is not None
    assert found.cv > 0.3


def test_before_the_first_look_there_is_no_grade() -> None:
    assert World().quality() == PoolQuality("ns/llama", ("ns/s",), "RoundRobin")


# The other strategy


POOR = {"fallback": "LeastRequests", "fallback_after": 300.0, "fallback_for": 1800.0}


def test_a_pool_that_stays_poor_falls_back_and_tries_its_own_strategy_again() -> None:
    world = World(**POOR)
    world.load(a=10, b=10, c=90)
    world.wait(WARM_SECONDS + 300.0 - STEP)
    assert world.quality().strategy == "RoundRobin"
    world.wait(2 * STEP)
    assert world.quality().strategy == "LeastRequests"
    assert world.quality().grade is None  # it begins anew
    world.wait(1800.0 - 2 * STEP)
    assert world.quality().strategy == "LeastRequests"
    world.wait(2 * STEP)
    assert world.quality().strategy == "RoundRobin"


def test_a_pool_that_is_poor_now_and_then_stays_as_it_is() -> None:
    world = World(**POOR)
    for _ in range(4):
        world.load(a=10, b=10, c=90)
        world.wait(250.0)
        world.load(a=50, b=50, c=50)
        world.wait(250.0)
        assert world.quality().strategy == "RoundRobin"


def test_a_pool_without_a_fallback_stays_as_it_is() -> None:
    world = World()
    world.load(a=10, b=10, c=90)
    world.wait(1000.0)
    assert world.quality().grade is Grade.POOR
    assert world.quality().strategy == "RoundRobin"


def test_requests_in_flight_are_kept_when_the_strategy_changes_and_the_new_one_picks() -> None:
    world = World(**POOR)
    world.load(a=10, b=30, c=90)
    seen: list[int] = []
    world.router.on_change = lambda: seen.append(1)
    world.wait(WARM_SECONDS + 300.0 + STEP)
    assert seen
    answers = [world.router.acquire(Request(MODEL), world.now) for _ in range(5)]
    assert {answer.uid for answer in answers if isinstance(answer, Pick)} == {"a"}
    world.load(a=0, b=0, c=0)
    assert world.router.in_flight() == 5


def test_somebody_who_asks_for_other_settings_gets_them_at_the_next_look() -> None:
    world = World(**POOR)
    world.load(a=10, b=10, c=90)
    world.wait(WARM_SECONDS + 300.0 + STEP)
    assert world.quality().strategy == "LeastRequests"
    settings = PoolSettings("PowerOfTwoChoices", **POOR)  # type: ignore[arg-type]
    world.router.apply(ServerSeen(replace(server(), pool=settings)), world.now)
    world.wait(STEP)
    assert world.quality().strategy == "PowerOfTwoChoices"


def test_a_pool_names_the_servers_whose_endpoints_it_has() -> None:
    world = World(**POOR)
    see(world.router, BOOT, pod("x", of="ns/t"), pod("y", of="ns/t"))
    world.router.apply(ServerSeen(server("t", ModelSpec("other"), ModelSpec(MODEL), created_at=5.0)), BOOT)
    found = {each.pool: each.servers for each in world.router.quality()}
    assert found == {"ns/llama": ("ns/s", "ns/t"), "ns/other": ("ns/t",)}
