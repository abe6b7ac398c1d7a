"""Weighted rotation: each endpoint's share of the picks, at every moment, and how it is kept through changes."""

from collections.abc import Iterator
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import SHAPES, STEPS, Play
from tests.core.world import endpoint, pool

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.meter import Meter
from tailrace.core.model import PoolSettings
from tailrace.core.pool import Pool
from tailrace.core.sources.weighted import WeightedRotationSource
from tailrace.core.strategies import WEIGHTS

WEIGHT_LISTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def weighted(*weights: int) -> tuple[Pool, list[Endpoint]]:
    """Return a pool of endpoints that never fill up, with these weights, and the endpoints."""
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(len(weights))]
    for each, weight in zip(all_of, weights, strict=True):
        each.weight = weight
    made = Pool(PoolSettings("WeightedRoundRobin", weight_by="Explicit"), rng=None)  # type: ignore[arg-type]
    for each in all_of:
        made.add(each)
    return made, all_of


def letters(of: Pool, all_of: list[Endpoint], picks: int) -> str:
    """Pick so often; return who was picked."""
    return "".join("abcdefgh"[all_of.index(each)] for _ in range(picks) if (each := of.pick(1)))


def counted_picks(of: Pool, all_of: list[Endpoint], picks: int) -> Iterator[tuple[dict[Endpoint, int], int]]:
    """Pick so often; yield after each pick how often everyone was picked, and the number of picks."""
    counts = dict.fromkeys(all_of, 0)
    for number in range(1, picks + 1):
        chosen = of.pick(1)
        assert chosen is not None
        counts[chosen] += 1
        yield counts, number


@given(WEIGHT_LISTS, st.integers(1, 200))
def test_everyone_has_its_exact_share_of_the_picks_to_within_one_at_every_moment(
    weights: list[int], picks: int
) -> None:
    made, all_of = weighted(*weights)
    for counts, number in counted_picks(made, all_of, picks):
        for each in all_of:
            assert abs(counts[each] - Fraction(number * each.weight, sum(weights))) <= 1


def test_no_run_is_longer_than_the_weights_make_it() -> None:
    made, all_of = weighted(5, 1, 1)
    assert letters(made, all_of, 14) == "abaacaa" * 2
    made, all_of = weighted(1, 1)
    assert letters(made, all_of, 6) == "ababab"
    made, all_of = weighted(2, 1)
    assert letters(made, all_of, 9) == "aba" * 3


TINY = Fraction(1, 10**20)


class Reference:
    """The rule with fractions: who has begun, and ends first; who comes in begins now."""

    def __init__(self, all_of: list[Endpoint]) -> None:
        self.now = Fraction(0)
        self.begins = dict.fromkeys(all_of, Fraction(0))
        self.inside = {each for each in all_of if each.available}

    def follow(self) -> None:
        for each in self.begins:
            if each.available and each not in self.inside:
                self.inside.add(each)
                self.begins[each] = max(self.begins[each], self.now)
            elif not each.available:
                self.inside.discard(each)

    def allows(self, chosen: Endpoint | None) -> bool:
        """Whether the rule picks that one; what is equal in fractions is decided by rounding or by rank."""
        if chosen is None:
            return not self.inside
        begun = [each for each in self.inside if self.begins[each] <= self.now + TINY]
        if not begun:
            return self.begins[chosen] <= min(self.begins[each] for each in self.inside) + TINY
        ends = {each: self.begins[each] + Fraction(1, each.capacity) for each in begun}
        return chosen in ends and ends[chosen] <= min(ends.values()) + TINY

    def took(self, chosen: Endpoint) -> None:
        self.now = max(self.now, self.begins[chosen]) + Fraction(1, sum(each.capacity for each in self.inside))
        self.begins[chosen] += Fraction(1, chosen.capacity)


@given(SHAPES, STEPS)
def test_it_picks_who_has_begun_and_ends_first(shapes: list[tuple[int, int]], steps: list[tuple[str, int]]) -> None:
    play = Play(shapes, "WeightedRoundRobin")
    reference = Reference(play.all)
    for what, number in steps:
        if (picked := play.step(what, number - number % 3 + 1)) is not None:
            assert reference.allows(picked[1])
            if picked[1] is not None:
                reference.took(picked[1])
            play.take(picked[1])
        reference.follow()


def test_who_was_away_begins_anew_without_a_burst() -> None:
    made, all_of = weighted(1, 1, 1)
    all_of[0].on(Event.SEEN_UNREADY)
    assert letters(made, all_of, 20) == "bc" * 10
    all_of[0].on(Event.SEEN_READY)
    assert letters(made, all_of, 9).count("a") == 3


def test_a_full_endpoint_is_passed_over_and_takes_up_its_turn_after_that() -> None:
    made, all_of = weighted(1, 1)
    all_of[0].resize(1, 80)
    all_of[0].take()
    assert letters(made, all_of, 3) == "bbb"
    all_of[0].free()
    assert letters(made, all_of, 4) in {"abab", "baba"}


def test_a_new_weight_counts_from_the_next_turn_on() -> None:
    weights = {0: 1, 1: 1}
    source = WeightedRotationSource(lambda each: weights[each.added])
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(2)]
    for each in all_of:
        source.update(each)
    weights[0] = 9
    source.update(all_of[0])
    picks = []
    for _ in range(200):
        best = source.best()
        assert best is not None
        source.took(best)
        picks.append(best)
    assert 178 <= picks.count(all_of[0]) <= 182


def test_coming_and_going_leaves_nothing_behind() -> None:
    made, all_of = weighted(3, 1)
    for _ in range(1000):
        all_of[0].on(Event.SEEN_UNREADY)
        all_of[0].on(Event.SEEN_READY)
    source = made._any.first
    assert isinstance(source, WeightedRotationSource)
    assert len(source._waiting) + len(source._eligible) < 300
    assert list(source.offer()) == all_of
    for each in all_of:
        source.took(each)
        each.on(Event.SEEN_UNREADY)
        each.on(Event.SEEN_READY)
    assert sorted(source.offer(), key=all_of.index) == all_of


def test_weights_are_capacities_settings_or_hardware() -> None:
    a100, t4 = endpoint("a100", 64, 40), endpoint("t4", 8, 16)
    a100.gpu_tflops, t4.gpu_tflops = 312, 65
    a100.weight, t4.weight = 3, 2
    assert WEIGHTS["Capacity"](a100) / WEIGHTS["Capacity"](t4) == 8
    assert WEIGHTS["Explicit"](a100) / WEIGHTS["Explicit"](t4) == 1.5
    assert WEIGHTS["Hardware"](a100) / WEIGHTS["Hardware"](t4) == 12
    assert WEIGHTS["Hardware"](endpoint("unknown", 8, 0)) == WEIGHTS["Hardware"](t4)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.1, 4.0)), min_size=1, max_size=8),
    st.integers(1, 150),
    st.sampled_from(["Mean", "P95"]),
)
def test_by_response_times_everyone_has_the_share_of_its_capacity_by_its_latency_at_every_moment(
    shapes: list[tuple[int, float]], picks: int, latency: str
) -> None:
    all_of = [endpoint(f"e{n}", capacity, 80, n) for n, (capacity, _) in enumerate(shapes)]
    made = Pool(PoolSettings("WeightedResponseTime", latency=latency), rng=None)  # type: ignore[arg-type]
    for each, (_, seconds) in zip(all_of, shapes, strict=True):
        made.add(each)
        for _ in range(3):
            _answer(made, each, seconds)
    weights = {each: capacity / seconds for each, (capacity, seconds) in zip(all_of, shapes, strict=True)}
    for counts, number in counted_picks(made, all_of, picks):
        for each in all_of:
            assert abs(counts[each] - number * weights[each] / sum(weights.values())) <= 1.01


@pytest.mark.parametrize("latency", ["Mean", "P95"])
def test_response_times_weigh_capacity_by_latency(latency: str) -> None:
    fast, slow, new = (endpoint(name, 1000, 80, n) for n, name in enumerate(("fast", "slow", "new")))
    made = Pool(PoolSettings("WeightedResponseTime", latency=latency), rng=None)  # type: ignore[arg-type]
    for each in (fast, slow, new):
        made.add(each)
    for _ in range(200):
        for each, seconds in ((fast, 1.0), (slow, 3.0)):
            _answer(made, each, seconds)
    _answer(made, new, 2.0)
    picks = [made.pick(1) for _ in range(1100)]
    assert abs(picks.count(fast) - 600) <= 10
    assert abs(picks.count(slow) - 200) <= 10
    assert abs(picks.count(new) - 300) <= 10


def test_an_endpoint_that_was_very_slow_is_still_picked_now_and_then() -> None:
    usual, stuck = endpoint("usual", 1000), endpoint("stuck", 1000, added=1)
    made = pool(usual, stuck, strategy="WeightedResponseTime")
    for _ in range(100):
        _answer(made, usual, 1.0)
    _answer(made, stuck, 100_000.0)
    assert [made.pick(1) for _ in range(3000)].count(stuck) >= 5


def test_before_anything_was_answered_capacities_decide() -> None:
    large, small = endpoint("large", 300), endpoint("small", 100, added=1)
    made = pool(large, small, strategy="WeightedResponseTime")
    assert [made.pick(1) for _ in range(400)].count(large) == 300


def _answer(of: Pool, by: Endpoint, seconds: float) -> None:
    from tailrace.core.model import Outcome  # noqa: PLC0415
    from tailrace.core.sources.base import ANY  # noqa: PLC0415

    assert isinstance(by.meter, Meter)
    of.notes.open(by, ANY, 0.0).end(Outcome.COMPLETED, None, seconds)
    by.refresh()
