"""Each strategy by its defining rule, with endpoints that fill up, leave and come back."""

from fractions import Fraction
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tests.core.play import SHAPES, STEPS, Play
from tests.core.world import endpoint, pool

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.meter import UNMETERED
from tailrace.core.model import EndpointState, Request, Traits
from tailrace.core.order import BY_LOAD_RATIO
from tailrace.core.pool import REFUSALS_BEFORE_SCAN, Pool
from tailrace.core.strategies import STRATEGIES, strategy_named

ENTERED: dict[str | EndpointState, tuple[Event, ...]] = {
    EndpointState.STARTING: (Event.SEEN_UNREADY,),
    EndpointState.DRAINING: (Event.DRAIN,),
    EndpointState.DRAINED: (Event.DRAIN, Event.DRAIN_OVER),
}


def exact_order(each: Endpoint) -> tuple[Fraction, Fraction, int, int]:
    """Order as weighted least connections is defined, with fractions."""
    ratio = Fraction(each.in_flight, each.capacity)
    return ratio, -each.gpu_memory_gb * (1 - ratio), -each.capacity, each.added


@given(SHAPES, STEPS)
def test_weighted_least_connections_picks_the_exact_minimum(
    shapes: list[tuple[int, int]], steps: list[tuple[str, int]]
) -> None:
    play = Play(shapes, "WeightedLeastConnections")
    for what, number in steps:
        if (picked := play.step(what, number)) is not None:
            able, chosen = picked
            assert chosen is min(able, key=exact_order, default=None)
            play.take(chosen)


@given(SHAPES, STEPS)
def test_least_requests_picks_the_fewest_in_flight(shapes: list[tuple[int, int]], steps: list[tuple[str, int]]) -> None:
    play = Play(shapes, "LeastRequests")
    for what, number in steps:
        if (picked := play.step(what, number)) is not None:
            able, chosen = picked
            assert chosen is min(able, key=lambda e: (e.in_flight, e.rank), default=None)
            play.take(chosen)


@given(SHAPES, STEPS)
def test_round_robin_picks_whoever_waited_longest(shapes: list[tuple[int, int]], steps: list[tuple[str, int]]) -> None:
    play = Play(shapes, "RoundRobin")
    turns: dict[str, int] = {}
    last: Endpoint | None = None
    for turn, (what, number) in enumerate(steps, 1):
        if (picked := play.step(what, number)) is not None:
            able, chosen = picked
            assert chosen is min(able, key=lambda e: (turns.get(e.uid, 0), e.rank), default=None)
            assert chosen is None or chosen is not last or len(able) == 1
            play.take(chosen)
            if chosen is not None:
                last, turns[chosen.uid] = chosen, turn


@given(st.integers(2, 7), st.integers(0, 50))
def test_round_robin_gives_equal_shares(count: int, picks: int) -> None:
    play = Play([(1000, 80)] * count, "RoundRobin")
    for _ in range(picks):
        play.take(play.pool.pick(1))
    shares = [each.in_flight for each in play.all]
    assert max(shares) - min(shares) <= 1


def test_an_endpoint_that_comes_back_gets_one_turn_and_no_burst() -> None:
    play = Play([(1000, 80)] * 3, "RoundRobin")
    play.all[0].on(Event.SEEN_UNREADY)
    for _ in range(10):
        play.take(play.pool.pick(1))
    play.all[0].on(Event.SEEN_READY)
    back = [play.pool.pick(1) for _ in range(6)]
    assert back.count(play.all[0]) == 2
    assert back[0] is play.all[0]


def test_a_turn_taken_by_a_long_prompt_counts_for_short_ones() -> None:
    play = Play([(1000, 80), (1000, 80), (1000, 24)], "RoundRobin")
    picks = [play.pool.pick(tokens) for tokens in (5000, 1, 1, 5000, 5000, 1)]
    assert [play.all.index(each) for each in picks if each] == [0, 1, 2, 0, 1, 2]


class Scripted(Random):
    """Chance that does as it is told."""

    def __init__(self, draws: list[float]) -> None:
        super().__init__(0)
        self._draws = iter(draws)

    def random(self) -> float:
        return next(self._draws)


@given(SHAPES, STEPS, st.integers(0, 2**32))
def test_power_of_two_choices_picks_the_less_loaded_of_two_distinct_samples(
    shapes: list[tuple[int, int]], steps: list[tuple[str, int]], seed: int
) -> None:
    play = Play(shapes, "PowerOfTwoChoices")
    chance = Random(seed)
    drawn: list[float] = []

    class Recorded(Random):
        def random(self) -> float:
            drawn.append(chance.random())
            return drawn[-1]

    play.pool = Pool(play.pool.settings, Recorded())
    for each in play.all:
        each.pools, each.sources = [], ()
        play.pool.add(each)
    for what, number in steps:
        drawn.clear()
        if (picked := play.step(what, number)) is not None:
            able, chosen = picked
            assert len(drawn) == min(2, len(able))
            # Never the worst of three or more: it would lose to any other sample.
            worst = max(able, key=BY_LOAD_RATIO.of, default=None)
            assert len(able) < 2 or chosen is not worst
            play.take(chosen)


def test_power_of_two_choices_draws_as_chance_says() -> None:
    all_of = [endpoint(f"e{n}", 4, 80, n) for n in range(4)]
    for each, load in zip(all_of, (0, 1, 2, 3), strict=True):
        each.in_flight = load

    def pick(first: float, second: float) -> Endpoint | None:
        made = Pool(pool(strategy="PowerOfTwoChoices").settings, Scripted([first, second]))
        for each in all_of:
            each.pools, each.sources = [], ()
            made.add(each)
        return made.pick(1)

    assert pick(0.0, 0.0) is all_of[0]  # 0 and 1
    assert pick(0.99, 0.99) is all_of[0]  # 3, then the last of those left: 0 has taken its place
    assert pick(0.5, 0.5) is all_of[0]  # 2, then the middle of 1, 0, 3
    assert pick(0.5, 0.99) is all_of[2]  # 2, then 3
    assert pick(0.5, 0.0) is all_of[1]  # 2, then 1


def test_power_of_two_choices_draws_everyone_equally_often() -> None:
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(5)]
    made = pool(*all_of, strategy="PowerOfTwoChoices", seed=7)
    for _ in range(2000):
        chosen = made.pick(1)
        assert chosen is not None
        chosen.take()
    assert all(380 <= each.in_flight <= 420 for each in all_of)


@settings(max_examples=300)
@given(st.integers(1, 1000), st.integers(1, 1000), st.data())
def test_the_load_ratio_orders_as_fractions_do(left: int, right: int, data: st.DataObject) -> None:
    a, b = endpoint("a", left), endpoint("b", right)
    a.in_flight, b.in_flight = data.draw(st.integers(0, left)), data.draw(st.integers(0, right))
    a.rank = b.rank = 0
    exact = Fraction(a.in_flight, left), Fraction(b.in_flight, right)
    ratios = BY_LOAD_RATIO.of(a), BY_LOAD_RATIO.of(b)
    assert (ratios[0] < ratios[1], ratios[0] == ratios[1]) == (exact[0] < exact[1], exact[0] == exact[1])


def test_the_load_ratio_keeps_the_order_of_all_neighbours_up_to_1000() -> None:
    """Walk the Farey sequence: if every two neighbours are told apart in order, so is every pair."""
    made = endpoint("a")
    made.rank = 0

    def ratio(load: int, capacity: int) -> int:
        made.in_flight, made.capacity = load, capacity
        return BY_LOAD_RATIO.of(made)

    a, b, c, d = 0, 1, 1, 1000
    before = ratio(a, b)
    while c <= d:
        now = ratio(c, d)
        assert before < now, (a, b, c, d)
        before = now
        step = (1000 + b) // d
        a, b, c, d = c, d, step * c - a, step * d - b


@pytest.mark.parametrize("load", [1, 2, 3])
def test_equal_fractions_have_equal_ratios(load: int) -> None:
    made = endpoint("a")
    made.rank = 0
    values = set()
    for factor in range(1, 250):
        made.in_flight, made.capacity = load * factor, 4 * factor
        values.add(BY_LOAD_RATIO.of(made))
    assert len(values) == 1


def test_an_unknown_strategy_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"no strategy 'Best'; there are WeightedLeastConnections, .*PowerOfTwoChoices"
    ):
        strategy_named("Best")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_picks_only_what_qualifies(name: str) -> None:
    short, long, full = endpoint("short", 4, 40), endpoint("long", 4, 80, 1), endpoint("full", 1, 141, 2)
    away = endpoint("away", 1000, 141, 3, ready=False)
    made = pool(short, long, full, away, strategy=name)
    full.take()
    for each in (short, long):
        each.adapters = frozenset({"lora"})
    assert made.pick(5000) is long
    assert made.pick(1, avoid=frozenset({"long"})) is short
    assert made.pick(5000, avoid=frozenset({"long"})) is None
    assert made.pick(5000, "lora") is long
    assert made.pick(1, "other") is None


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("state", ["full", EndpointState.STARTING, EndpointState.DRAINING, EndpointState.DRAINED])
def test_whom_a_strategy_prefers_is_passed_over_while_it_is_full_unready_or_draining(
    name: str, state: str | EndpointState
) -> None:
    made = pool(*(endpoint(f"e{n}", 2, 80, n) for n in range(3)), strategy=name)
    request = Request("llama", traits=Traits(1000, session="s", prefix=7, chain=(1, 2)))
    home = made.pick(1, request=request)
    assert home is not None
    if home.meter is not UNMETERED:
        made.notes.open(home, request, 0.0)
    for _ in range(2 if state == "full" else 0):
        home.take()
    for event in ENTERED.get(state, ()):
        home.on(event)
    others = set(made.endpoints.values()) - {home}
    assert {made.pick(1, request=request) for _ in range(20)} <= others
    for _ in range(home.in_flight):
        home.free()
    for event in (Event.UNDRAIN, Event.SEEN_READY):
        home.on(event)
    picks = []
    while (picked := made.pick(1, request=request)) is not None:
        picks.append(picked)
        picked.take()
    assert sorted(each.uid for each in picks) == ["e0", "e0", "e1", "e1", "e2", "e2"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_many_refusals_end_in_one_counted_scan_that_keeps_the_rule(name: str) -> None:
    plain = [endpoint(f"p{n}", 4, 80, n) for n in range(REFUSALS_BEFORE_SCAN)]
    tuned = [endpoint(f"t{n}", 4, 16, 100 + n) for n in range(3)]
    for each in tuned:
        each.adapters = frozenset({"lora"})
    made = pool(*plain, *tuned, strategy=name, seed=1)
    picks = [made.pick(1, "lora") for _ in range(6)]
    assert set(picks) <= set(tuned)
    assert made.scans >= (0 if name == "PowerOfTwoChoices" else 6)
    if name == "RoundRobin":
        assert picks == tuned * 2


def test_few_refusals_need_no_scan() -> None:
    plain = [endpoint(f"p{n}", 4, 80, n) for n in range(REFUSALS_BEFORE_SCAN - 1)]
    tuned = endpoint("tuned", 4, 16, 100)
    tuned.adapters = frozenset({"lora"})
    made = pool(*plain, tuned)
    assert made.pick(1, "lora") is tuned
    assert made.scans == 0
    assert made.pick(1) is plain[0]  # those that were passed over are still there


def test_a_scan_by_power_of_two_choices_takes_the_less_loaded_of_two() -> None:
    plain = [endpoint(f"p{n}", 4, 80, n) for n in range(3 * REFUSALS_BEFORE_SCAN)]
    tuned = [endpoint(f"t{n}", 4, 16, 900 + n) for n in range(2)]
    for each in tuned:
        each.adapters = frozenset({"lora"})
    tuned[0].in_flight = 1
    made = pool(*plain, *tuned, strategy="PowerOfTwoChoices", seed=3)
    before = made.scans
    while made.scans == before:
        assert made.pick(1, "lora") is tuned[1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_endpoint_that_left_the_pool_is_not_offered_and_may_join_again(name: str) -> None:
    a = endpoint("a")
    made = pool(a, strategy=name)
    assert made.pick(1) is a
    made.remove(a)
    assert made.pick(1) is None
    assert (a.pools, a.sources) == ([], ())
    made.add(a)
    assert made.pick(1) is a
    assert a.state is EndpointState.READY


@pytest.mark.parametrize("name", STRATEGIES)
def test_leaving_one_pool_leaves_the_others_alone(name: str) -> None:
    a = endpoint("a")
    first, second = pool(a, strategy=name), pool(a, strategy=name)
    first.remove(a)
    a.take()
    a.free()
    assert second.pick(1) is a


def test_a_slot_taken_in_one_pool_is_taken_in_all() -> None:
    a, b = endpoint("a", 1, 141), endpoint("b", 1, 40, 1)
    first, second = pool(a, b), pool(a, b)
    a.take()
    assert first.pick(1) is second.pick(1) is b


def test_retry_after_is_learnt_from_service_times_and_bounded() -> None:
    made = pool(endpoint("a"), endpoint("b", added=1))
    assert made.retry_after(0.0) == 1
    for number in range(100):
        made.learn(21.0, 21.0 * number)
    long_after = 10_000.0
    assert made.retry_after(long_after) == 11
    assert made.retry_after(long_after, waiting=2) == 32
    for _ in range(100):
        made.learn(10_000.0, 0.0)
    assert made.retry_after(long_after) == 60
    assert pool().retry_after(0.0) == 1


def test_retry_after_follows_how_often_slots_are_freed() -> None:
    made = pool(endpoint("a"), endpoint("b", added=1))
    for number in range(400):
        made.learn(30.0, number / 4)
    assert made.retry_after(100.0) == 1
    assert made.retry_after(100.0, waiting=99) in range(24, 27), "a hundred slots, four a second"
