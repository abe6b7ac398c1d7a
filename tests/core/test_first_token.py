"""LeastEstimatedTTFT: what is pending, what is remembered, how fast each endpoint is, and who is picked for it."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.world import BOOT, ME, endpoint, pod, pool, server

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.learn import FRESH_SECONDS, Speed
from tailrace.core.meter import Work
from tailrace.core.model import (
    EndpointGone,
    EndpointSeen,
    ModelSpec,
    Outcome,
    Pick,
    PoolSettings,
    Request,
    ServerSeen,
    Traits,
    Usage,
)
from tailrace.core.pool import Pool
from tailrace.core.prefill import LIKE, LOAD_SECONDS, UNCACHED_WEIGHT, Prefills
from tailrace.core.prefix import MOST_BLOCKS
from tailrace.core.router import Router

STRATEGY = "LeastEstimatedTTFT"
CHAINS = st.lists(st.integers(0, 2), max_size=4).map(
    lambda path: tuple(hash(tuple(path[: n + 1])) for n in range(len(path)))
)


def asks(prompt: int, chain: tuple[int, ...] = (), *, streams: bool = True, leased: bool = False) -> Request:
    return Request("llama", prompt, leased=leased, traits=Traits(prompt, chain=chain, streams=streams))


def send(of: Pool, request: Request, now: float = 0.0) -> tuple[Endpoint, Work]:
    chosen = of.pick(1, request=request, now=now)
    assert chosen is not None
    chosen.take()
    return chosen, of.notes.open(chosen, request, now)


def end(sent: tuple[Endpoint, Work], now: float, outcome: Outcome = Outcome.COMPLETED) -> None:
    sent[1].end(outcome, None, now)
    sent[0].free()


def speed(of: Pool, by: Endpoint, now: float) -> float:
    assert isinstance(of.notes, Prefills)
    return of.notes.speed(by, now)


def settled(of: Pool, by: Endpoint, tokens_per_second: float) -> None:
    """Let the endpoint have read for a minute at that speed."""
    for second in range(60):
        by.meter.prefill.see(tokens_per_second, 1.0, float(second - 60))
    by.refresh()


@given(
    st.lists(st.sampled_from([2000.0, 8000.0]), min_size=1, max_size=7),
    st.lists(st.tuples(st.sampled_from("pppbe"), st.integers(1, 20_000), CHAINS), max_size=30),
)
def test_of_few_endpoints_the_least_estimate_is_picked(
    speeds: list[float], steps: list[tuple[str, int, tuple[int, ...]]]
) -> None:
    """Seven are as many as are compared, and two samples, three of two speeds and two holders may be the same."""
    all_of = [endpoint(f"e{n}", 8, 80, n) for n in range(len(speeds))]
    made = pool(*all_of, strategy=STRATEGY)
    notes = made.notes
    assert isinstance(notes, Prefills)
    for each, tokens in zip(all_of, speeds, strict=True):
        settled(made, each, tokens)
    active: list[tuple[Endpoint, Work]] = []
    for what, prompt, chain in steps:
        request = asks(prompt, chain)
        if what == "p" and any(each.available for each in all_of):
            able = [each for each in all_of if each.available]
            cost = {e: estimate(notes, e, request) for e in able}
            # Whoever is best is the best of those without a match of its speed, or holds the prefix, or is not drawn.
            unmatched = [e for e in able if notes.believed(e, request) == 0]
            sent = send(made, request)
            active.append(sent)
            bound = min(
                (cost[e] for e in unmatched if e.meter.pending == least(made, able, e)), default=max(cost.values())
            )
            assert cost[sent[0]] <= bound + 1e-5
        elif active and what == "b":
            active[prompt % len(active)][1].began(0.0, ok=False)
        elif active and what == "e":
            end(active.pop(prompt % len(active)), 0.0, Outcome.FAILED)
    for sent in active:
        end(sent, 0.0, Outcome.FAILED)
    assert all((e.meter.pending, e.meter.tokens) == (0, 0) for e in all_of)


def prompt_of(request: Request) -> int:
    assert request.traits is not None
    return request.traits.prompt_tokens


def estimate(notes: Prefills, of: Endpoint, request: Request) -> float:
    """Return the documented cost before any time has passed."""
    tokens = of.meter.pending + UNCACHED_WEIGHT * notes.uncached(of, request, prompt_of(request))
    return tokens / notes.speed(of, 0.0) + LOAD_SECONDS * of.in_flight / of.capacity


def least(of: Pool, able: list[Endpoint], like: Endpoint) -> int:
    """Return the fewest tokens pending at an endpoint of that speed."""
    return min(each.meter.pending for each in able if speed(of, each, 0.0) == speed(of, like, 0.0))


def test_a_prompt_goes_where_its_beginning_is_remembered_until_that_is_too_busy() -> None:
    all_of = [endpoint(f"e{n}", 64, 80, n) for n in range(4)]
    made = pool(*all_of, strategy=STRATEGY)
    chain = tuple(range(100, 164))
    home, work = send(made, asks(8192, chain))
    work.began(1.0, ok=True)
    again = send(made, asks(8192, chain), 1.0)
    assert again[0] is home
    assert again[1].endpoint.meter.pending <= 1
    for _ in range(3):
        home.meter.pending += 8192
    assert send(made, asks(8192, chain), 1.0)[0] is not home


def test_a_prompt_counts_less_the_longer_it_has_been_read() -> None:
    one, other = endpoint("one", 64, 80, 0), endpoint("other", 64, 80, 1)
    made = pool(one, other, strategy=STRATEGY)
    for each in (one, other):
        settled(made, each, 8000.0)
    assert send(made, asks(8000), 0.0)[0] is one
    assert send(made, asks(4000), 0.8)[0] is other
    assert made.pick(1, request=asks(1000), now=0.8) is one, "1,600 tokens are left there, and all 4,000 here"


def test_engines_read_one_prompt_after_the_other() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    first, second = send(made, asks(8000)), send(made, asks(4000))
    left = one.meter.left
    assert [left(8000.0, now) for now in (0.0, 0.5, 1.0, 9.0)] == [12_000, 8000, 4000, 4000], "it answers late"
    first[1].began(1.5, ok=True)
    assert [left(8000.0, now) for now in (1.5, 1.75, 2.0, 9.0)] == [4000, 2000, 0, 0]
    assert left(8000.0, 1.4) == 4000, "a clock may be behind"
    third = send(made, asks(4000), 2.0)
    end(second, 2.0)
    assert [left(8000.0, now) for now in (2.0, 2.25)] == [4000, 2000]
    end(third, 3.0)
    end(first, 3.0)
    assert left(8000.0, 9.0) == 0


def test_what_would_be_computed_anew_counts_more_than_what_is_pending() -> None:
    """Alone it would be done sooner elsewhere (4,396 tokens against 5,300), and whoever comes next would pay for it."""
    home, other = endpoint("home", 64, 80, 0), endpoint("other", 64, 80, 1)
    made = pool(home, other, strategy=STRATEGY)
    chain = tuple(range(100, 132))
    settled(made, home, 8000.0)
    settled(made, other, 8000.0)
    other.meter.pending = 100_000
    other.refresh()
    sent = send(made, asks(4096, chain))
    assert sent[0] is home
    end(sent, 1.0)
    other.meter.pending, home.meter.pending = 0, 5000
    home.refresh()
    other.refresh()
    assert made.pick(1, request=asks(4396, chain), now=1.0) is home
    home.meter.pending = 7000
    assert made.pick(1, request=asks(4396, chain), now=1.0) is other


def test_small_differences_of_speed_are_noise_and_large_ones_are_not() -> None:
    made = pool(*(endpoint(name, 64, 80, n) for n, name in enumerate("abc")), strategy=STRATEGY)
    a, b, c = made.endpoints.values()
    for each, tokens in ((a, 8000 / LIKE * 1.01), (b, 8000 * LIKE * 0.99), (c, 8000 / LIKE * 0.9)):
        settled(made, each, tokens)
    assert speed(made, a, 0.0) == speed(made, b, 0.0) == 8000.0
    assert speed(made, c, 0.0) == pytest.approx(8000 / LIKE * 0.9, rel=0.02)


def test_where_nothing_else_is_known_the_least_load_ratio_wins() -> None:
    small, large = endpoint("small", 4, 80, 0), endpoint("large", 16, 80, 1)
    made = pool(small, large, strategy=STRATEGY)
    for second in range(10):
        send(made, Request("llama", 100), float(second))
    assert (small.in_flight, large.in_flight) == (2, 8)


def test_of_two_speeds_a_long_prompt_goes_to_the_fast_one_and_the_rest_to_whoever_is_free() -> None:
    fast, slow = endpoint("fast", 64, 80, 0), endpoint("slow", 64, 80, 1)
    made = pool(fast, slow, strategy=STRATEGY)
    settled(made, fast, 8000.0)
    settled(made, slow, 1000.0)
    assert [send(made, asks(8000))[0] for _ in range(7)] == [fast] * 7
    assert send(made, asks(100))[0] is slow


def test_of_a_thousand_endpoints_the_idle_one_is_found_and_few_are_looked_at() -> None:
    all_of = [endpoint(f"e{n}", 64, 80, n) for n in range(1000)]
    made = pool(*all_of, strategy=STRATEGY)
    for each in all_of:
        each.meter.pending = 5000
        each.refresh()
    idle = all_of[777]
    idle.meter.pending = 0
    idle.refresh()
    assert send(made, asks(100))[0] is idle
    assert made.scans == 0


def test_the_speed_is_learnt_from_first_bytes_whoever_waited_for_whom() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    now = 0.0
    for _ in range(30):
        batch = [send(made, asks(4000), now) for _ in range(3)]
        for sent in batch:
            now += 2.0
            sent[1].began(now, ok=True)
        for sent in batch:
            end(sent, now)
    assert speed(made, one, now) == pytest.approx(2000, rel=0.05)


def test_prompts_that_were_read_together_tell_their_speed_together() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    now = 0.0
    for _ in range(30):
        batch = [send(made, asks(4000), now) for _ in range(4)]
        now += 2.0
        for sent in batch:
            sent[1].began(now, ok=True)
            end(sent, now)
    assert speed(made, one, now) == pytest.approx(8000, rel=0.05)


def test_speeds_stay_finite_though_the_clock_stands_still() -> None:
    one = endpoint("one", 64)
    for strategy in (STRATEGY, "ShortestExpectedCompletion", "WeightedResponseTime"):
        made = pool(one, strategy=strategy)
        for _ in range(20_000):
            sent = made.notes.open(one, asks(4000), 5.0)
            sent.began(5.0, ok=True)
            sent.end(Outcome.COMPLETED, None, 5.0)
        assert made.pick(1, request=asks(10), now=5.0) is one
        made.remove(one)


def test_errors_small_prompts_and_whole_answers_teach_no_speed() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    believed = speed(made, one, 0.0)
    for request, ok in ((asks(4000), False), (asks(100), True), (asks(4000, streams=False), True)):
        sent = send(made, request)
        sent[1].began(50.0, ok=ok)
        assert one.meter.pending == 0
        end(sent, 50.0)
        one.meter.began_at = 0.0
    assert speed(made, one, 50.0) == believed


def test_a_prompt_of_which_no_first_byte_will_tell_counts_as_read_when_it_should_have_been() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    settled(made, one, 1000.0)
    first, second = send(made, asks(3000, leased=True)), send(made, asks(2000, streams=False))
    assert one.meter.pending == 5000
    for now, pending in ((2.5, 5001), (3.2, 2002), (5.3, 3)):
        send(made, asks(1), now)
        assert one.meter.pending == pending
    end(first, 10.0)
    end(second, 10.0)


def test_a_prompt_that_waits_for_half_of_another_should_have_been_read_so_much_earlier() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    settled(made, one, 1000.0)
    for prompt, now in ((3000, 0.0), (2000, 2.0)):
        send(made, asks(prompt, leased=True), now)
    for now, pending in ((2.9, 5001), (4.9, 2002), (5.1, 3)):
        send(made, asks(1), now)
        assert one.meter.pending == pending


def test_a_turn_that_was_noticed_late_does_not_come_before_the_one_that_was_seen() -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    settled(made, one, 1000.0)
    silent, seen, last = (send(made, asks(1000, leased=leased)) for leased in (True, False, False))
    seen[1].began(2.0, ok=True)
    send(made, asks(1), 3.0)
    assert silent[1].endpoint.meter.pending == 1001
    assert one.meter.left(1000.0, 2.5) == 501, "the last one since 2, though the first was over at 1"
    end(last, 4.0)


def gives_up(sent: tuple[Endpoint, Work], _: Pool) -> None:
    end(sent, 0.75, Outcome.CLIENT_GONE)


def is_refused(sent: tuple[Endpoint, Work], _: Pool) -> None:
    sent[1].began(0.75, ok=False)


def is_due(_: tuple[Endpoint, Work], of: Pool) -> None:
    of.pick(1, request=asks(1), now=1.25)


@pytest.mark.parametrize(
    ("leaves", "leased", "now", "left"),
    [(gives_up, False, 0.75, 2000), (is_refused, False, 0.75, 2000), (is_due, True, 1.25, 0)],
)
def test_who_leaves_the_queue_behind_a_prompt_that_is_being_read_does_not_make_it_begin_anew(
    leaves: Callable[[tuple[Endpoint, Work], Pool], None], leased: bool, now: float, left: float
) -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    settled(made, one, 8000.0)
    first, second = send(made, asks(8000)), send(made, asks(1000, leased=leased))
    leaves(second, made)
    assert one.meter.left(8000.0, now) == left
    end(first, 2.0)


@pytest.mark.parametrize("looked", [True, False])
def test_it_does_not_matter_whether_somebody_looked_when_a_prompt_was_due(looked: bool) -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    settled(made, one, 1000.0)
    first = send(made, asks(1000, leased=True))
    send(made, asks(2000))
    if looked:
        made.pick(1, request=asks(1), now=1.0)
    end(first, 2.0)
    assert one.meter.left(1000.0, 2.0) == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize(("cached", "fewer"), [(0, True), (768, False), (640, False), (384, True), (None, False)])
def test_what_an_engine_had_forgotten_is_learnt_from_its_usage(cached: int | None, fewer: bool) -> None:
    one = endpoint("one", 64)
    made = pool(one, strategy=STRATEGY)
    notes = made.notes
    assert isinstance(notes, Prefills)
    chain = tuple(range(1, 7))
    before = notes.index._room(one)
    for usage in (Usage(768, 5, 0), Usage(768, 5, cached), None):
        sent = send(made, asks(768, chain))
        sent[1].end(Outcome.COMPLETED, usage, 1.0)
        sent[0].free()
    assert (notes.index._room(one) < before) == fewer


def test_hardware_is_the_first_guess_of_a_speed_and_what_others_made_of_theirs_the_second() -> None:
    a100, t4, unknown = (endpoint(name, 64, 80, n) for n, name in enumerate(("a100", "t4", "unknown")))
    a100.gpu_tflops, t4.gpu_tflops = 312, 65
    made = pool(a100, t4, unknown, strategy=STRATEGY)
    assert speed(made, a100, 0.0) / speed(made, t4, 0.0) == pytest.approx(312 / 65)
    assert speed(made, t4, 0.0) < speed(made, unknown, 0.0) < 3 * speed(made, a100, 0.0)
    now = 0.0
    for _ in range(100):
        sent = send(made, asks(4000), now)
        now += 4000 / (2 * 20.0 * (sent[0].gpu_tflops or 400))
        sent[1].began(now, ok=True)
        end(sent, now)
    assert speed(made, t4, now + 1000) == pytest.approx(2 * 20 * 65, rel=0.2), "twice the first guess, as the others"


def test_who_slows_down_is_noticed_and_who_rests_is_believed_to_be_as_usual() -> None:
    speed_of = Speed()
    for second in range(300):
        speed_of.see(8000.0, 1.0, float(second))
    assert speed_of.at(300.0, 1.0) == pytest.approx(8000, rel=0.01)
    for second in range(300, 308):
        speed_of.see(2000.0, 1.0, float(second))
    assert speed_of.at(307.0, 1.0) < 3000
    assert speed_of.at(308.0 + 3 * FRESH_SECONDS, 1.0) > 6000
    for second in range(340, 348):
        speed_of.see(8000.0, 1.0, float(second))
    assert speed_of.at(348.0, 1.0) > 7000
    assert speed_of.last(1.0) > 7000


def test_no_endpoint_is_buried_by_one_hot_prefix() -> None:
    """Nothing is ever answered: whoever has the prefix gets more, but not everything."""
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(8)]
    made = pool(*all_of, strategy=STRATEGY, seed=5)
    chain = tuple(range(100, 116))
    for _ in range(800):
        send(made, asks(2048 + 300, chain))
    loads = [each.in_flight for each in all_of]
    assert max(loads) <= 1.5 * sum(loads) / len(loads)
    assert min(loads) > 0


def test_pools_share_the_memory_for_prefixes() -> None:
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    first = replace(server(), pool=PoolSettings(STRATEGY))
    made.apply(ServerSeen(first), BOOT)
    made.apply(EndpointSeen(pod("p")), BOOT)

    def ask() -> int:
        for number in range(600):
            picked = made.acquire(asks(12_800, tuple(range(number * 100, number * 100 + 100))), BOOT)
            assert isinstance(picked, Pick)
            made.release(picked.attempt, Outcome.COMPLETED, BOOT)
        (notes,) = {each.notes for each in made._registry._pools.values() if each.endpoints}
        assert isinstance(notes, Prefills)
        return len(notes.index)

    alone = ask()
    for number in range(9):
        models = (ModelSpec(f"model-{number}"),)
        made.apply(ServerSeen(replace(first, key=f"demo/{number}", models=models)), BOOT)
    assert alone == 60_000
    assert ask() <= MOST_BLOCKS / 10


@pytest.mark.parametrize("change", ["gone", "anew"])
def test_a_router_forgets_the_prefixes_of_an_endpoint_that_is_gone_or_was_started_anew(change: str) -> None:
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    made.apply(ServerSeen(replace(server(), pool=PoolSettings(STRATEGY))), BOOT)
    made.apply(EndpointSeen(pod("p")), BOOT)
    picked = made.acquire(asks(1024, (1, 2, 3)), BOOT)
    assert isinstance(picked, Pick)
    made.first_byte(picked.attempt, BOOT + 1)
    made.release(picked.attempt, Outcome.COMPLETED, BOOT + 2)
    notes = next(iter(made._registry._pools.values())).notes
    assert isinstance(notes, Prefills)
    assert len(notes.index) == 3
    made.apply(EndpointGone("p") if change == "gone" else EndpointSeen(pod("p", version=2, incarnation="c2")), BOOT + 3)
    assert len(notes.index) == 0


def test_an_endpoint_that_left_or_is_full_is_not_offered_for_its_prefix() -> None:
    home, other = endpoint("home", 1, 80, 0), endpoint("other", 8, 40, 1)
    made = pool(home, other, strategy=STRATEGY)
    chain = (1, 2, 3)
    sent = send(made, asks(400, chain))
    assert sent[0] is home
    assert send(made, asks(400, chain))[0] is other
    end(sent, 0.0)
    home.on(Event.DRAIN)
    assert send(made, asks(400, chain))[0] is other
    made.remove(home)
    assert send(made, asks(400, chain))[0] is other
    assert made._any.first.best() is None, "without a prompt there is nobody to remember it"


def test_requests_that_tell_nothing_are_balanced_by_their_tokens() -> None:
    made = pool(*(endpoint(f"e{n}", 8, 80, n) for n in range(3)), strategy=STRATEGY)
    chosen = [send(made, Request("llama", 1000))[0].uid for _ in range(6)]
    assert sorted(chosen) == ["e0", "e0", "e1", "e1", "e2", "e2"]
