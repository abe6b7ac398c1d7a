"""Strategies that know what requests ask for: outstanding tokens, and how long such requests take."""

import pickle
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import SHAPES
from tests.core.world import BOOT, ME, endpoint, pod, pool, server

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.history import SECONDS_PER_TOKEN, History
from tailrace.core.meter import OUTPUT_TOKENS, UNMETERED, Lengths, Work
from tailrace.core.model import (
    EndpointSeen,
    ModelSpec,
    Needs,
    Outcome,
    Pick,
    PoolSettings,
    Request,
    ServerSeen,
    Traits,
    Usage,
)
from tailrace.core.pool import Pool
from tailrace.core.router import Router
from tailrace.core.strategies import STRATEGIES

LENGTHS = st.tuples(st.integers(1, 50_000), st.integers(0, 4000))
ENDS = st.sampled_from([Outcome.COMPLETED, Outcome.FAILED, Outcome.CLIENT_GONE])


def asks(prompt: int, output: int = 0) -> Request:
    return Request("llama", prompt + output, traits=Traits(prompt, output))


def send(of: Pool, request: Request, now: float = 0.0) -> tuple[Endpoint, Work] | None:
    """Pick and book, as the router does."""
    chosen = of.pick(1, request=request, now=now)
    if chosen is None:
        return None
    chosen.take()
    return chosen, of.notes.open(chosen, request, now)


def end(sent: tuple[Endpoint, Work], outcome: Outcome, now: float, usage: Usage | None = None) -> None:
    chosen, work = sent
    work.end(outcome, usage, now)
    chosen.free()


@given(SHAPES, st.lists(st.tuples(st.sampled_from("ppppfur"), LENGTHS, ENDS), max_size=60))
def test_least_tokens_picks_the_fewest_tokens_outstanding(
    shapes: list[tuple[int, int]], steps: list[tuple[str, tuple[int, int], Outcome]]
) -> None:
    all_of = [endpoint(f"e{n}", capacity, memory, n) for n, (capacity, memory) in enumerate(shapes)]
    made = pool(*all_of, strategy="LeastTokens")
    active: list[tuple[Endpoint, Work]] = []
    for now, (what, (prompt, output), outcome) in enumerate(steps):
        if what == "p":
            able = [each for each in all_of if each.available]
            owed = {e: sum(w.prompt + w.output for at, w in active if at is e) for e in all_of}
            assert {e: e.meter.tokens for e in all_of} == owed
            least = min(((owed[e], -e.gpu_memory_gb) for e in able), default=None)
            sent = send(made, asks(prompt, output), now)
            assert ((owed[sent[0]], -sent[0].gpu_memory_gb) if sent else None) == least
            active += [sent] if sent else []
        elif what == "f" and active:
            end(active.pop(prompt % len(active)), outcome, now, Usage(prompt * 2, output))
        else:
            all_of[prompt % len(all_of)].on(Event.SEEN_UNREADY if what == "u" else Event.SEEN_READY)
    for sent in active:
        end(sent, Outcome.FAILED, 100.0)
    assert all((e.meter.tokens, e.meter.seconds) == (0, 0.0) for e in all_of)


def test_lengths_follow_what_engines_count() -> None:
    lengths = Lengths()
    assert lengths.of(asks(1000)) == (1000, OUTPUT_TOKENS)
    assert lengths.of(asks(1000, 16)) == (1000, 16)
    for output in range(100):
        lengths.learn(asks(1000), Usage(1500, output))
    prompt, output = lengths.of(asks(1000))
    assert 1490 <= prompt <= 1500
    assert output == 89
    assert lengths.of(asks(1000, 4096))[1] == 89, "the client's ceiling is not what comes"
    assert lengths.of(Request("llama", 70)) == (70, 0), "nobody looked at the lengths"


def test_what_an_engine_does_not_tell_teaches_nothing() -> None:
    lengths = Lengths()
    lengths.learn(asks(10), Usage())
    lengths.learn(Request("llama", 10), Usage(50, None))
    assert lengths.of(asks(1000)) == (1000, OUTPUT_TOKENS)


def test_similar_requests_are_predicted_by_what_they_took_others_by_their_tokens() -> None:
    made = pool(endpoint("a"), strategy="ShortestExpectedCompletion")
    history = made.notes
    assert isinstance(history, History)
    assert history.predict(600, 100) == pytest.approx(700 * SECONDS_PER_TOKEN)
    for _ in range(50):
        sent = send(made, asks(600, 100))
        assert sent is not None
        end(sent, Outcome.COMPLETED, 7.0)
    slowness = made.endpoints["a"].meter.slowness.value
    assert history.predict(600, 100) * slowness == pytest.approx(7.0, rel=0.05)
    assert history.predict(1000, 127) == pytest.approx(history.predict(600, 100) * 1127 / 700), "same powers of two"
    before = history.predict(6000, 1000)
    assert before * slowness == pytest.approx(70.0, rel=0.1), "nothing like it was seen: as all requests"
    for _ in range(50):
        sent = send(made, asks(6000, 1000))
        assert sent is not None
        end(sent, Outcome.COMPLETED, 14.0)
    slowness = made.endpoints["a"].meter.slowness.value
    assert history.predict(6000, 1000) * slowness == pytest.approx(14.0, rel=0.2)
    assert history.predict(6000, 1000) < history.predict(600, 100) * 4, "each bucket by itself"


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=12),
    st.lists(st.tuples(st.sampled_from("pppf"), LENGTHS), max_size=60),
)
def test_the_expected_completion_is_the_earliest_to_within_a_class_of_speed(
    shapes: list[tuple[int, float]], steps: list[tuple[str, tuple[int, int]]]
) -> None:
    all_of = [endpoint(f"e{n}", capacity, 80, n) for n, (capacity, _) in enumerate(shapes)]
    made = pool(*all_of, strategy="ShortestExpectedCompletion")
    for each, (_, slowness) in zip(all_of, shapes, strict=True):
        for _ in range(200):
            each.meter.slowness.see(slowness, 1.0)
        each.refresh()
    active: list[tuple[Endpoint, Work]] = []
    for what, (prompt, output) in steps:
        if what == "p":
            finish = {
                e: (e.meter.seconds + made.notes.predict(*made.notes.lengths.of(asks(prompt, output))))
                * e.meter.slowness.value
                / e.capacity
                for e in all_of
                if e.available
            }
            sent = send(made, asks(prompt, output))
            assert (sent is None) == (not finish)
            if sent is not None:
                assert finish[sent[0]] <= min(finish.values()) * 2**0.5 + 1e-5
                active.append(sent)
        elif active:
            end(active.pop(prompt % len(active)), Outcome.FAILED, 0.0)


def test_of_equal_speed_the_earliest_completion_is_exact() -> None:
    all_of = [endpoint(f"e{n}", 8, 80, n) for n in range(4)]
    made = pool(*all_of, strategy="ShortestExpectedCompletion")
    for prompt in (8000, 100, 3000, 2000, 50, 4000):
        least = min(each.meter.seconds for each in all_of)
        chosen = made.pick(1, request=asks(prompt, 1))
        assert chosen is not None
        assert chosen.meter.seconds == least
        send(made, asks(prompt, 1))


def test_an_endpoint_that_turns_slow_gets_less_and_its_share_back_when_it_recovers() -> None:
    fast, slow = endpoint("fast", 8, 80, 0), endpoint("slow", 8, 80, 1)
    made = pool(fast, slow, strategy="ShortestExpectedCompletion")

    def share(factor: float, now: float) -> float:
        """Serve 600 requests from then on, 8 at a time; return the slow one's part of the last 300."""
        active: list[tuple[float, int, tuple[Endpoint, Work]]] = []
        there = 0
        for number in range(600):
            sent = send(made, asks(500, 50), now)
            assert sent is not None
            active.append((now + (factor if sent[0] is slow else 1.0), number, sent))
            there += number >= 300 and sent[0] is slow
            if len(active) == 8:
                active.sort()
                now, _, first = active.pop(0)
                end(first, Outcome.COMPLETED, now)
        for at, _, sent in sorted(active):
            end(sent, Outcome.COMPLETED, at)
        return there / 300

    assert 0.4 < share(1.0, 0.0) < 0.6
    assert share(4.0, 1000.0) < 0.3
    assert 0.4 < share(1.0, 2000.0) < 0.6


@pytest.mark.parametrize("strategy", ["LeastTokens", "ShortestExpectedCompletion", "WeightedResponseTime"])
def test_the_router_books_work_at_metered_endpoints_and_takes_it_off_however_an_attempt_ends(strategy: str) -> None:
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    made.apply(ServerSeen(replace(server(total=40.0), pool=PoolSettings(strategy))), BOOT)
    made.apply(EndpointSeen(pod("p")), BOOT)
    meter = made._registry.endpoints["p"].meter
    picks = [made.acquire(asks(100, 10)._replace(leased=leased), BOOT) for leased in (False, False, True)]
    assert meter.tokens == 330
    assert all(isinstance(each, Pick) for each in picks)
    attempts = [each.attempt for each in picks if isinstance(each, Pick)]
    made.release(attempts[0], Outcome.COMPLETED, BOOT + 2, Usage(100, 10))
    made.release(attempts[1], Outcome.CLIENT_GONE, BOOT + 3)
    assert meter.mean.value == 2.0
    made.next_deadline(BOOT + 50)
    made.releasable(BOOT + 50)
    assert (meter.tokens, meter.seconds) == (0, 0.0)


def test_only_endpoints_of_pools_that_ask_for_it_have_a_meter() -> None:
    one = endpoint("one")
    plain = pool(one)
    assert one.meter is UNMETERED
    first, second = pool(one, strategy="LeastTokens"), pool(one, strategy="LeastTokens")
    meter = one.meter
    assert meter is not UNMETERED
    plain.remove(one)
    plain.add(one)
    assert one.meter is meter, "what is in flight there is still booked on it"
    work = plain.notes.open(one, asks(10, 5), 0.0)
    assert first.pick(1, request=asks(1)) is second.pick(1, request=asks(1)) is one
    assert meter.tokens == 15
    work.end(Outcome.COMPLETED, None, 1.0)


def nobody_waits() -> None:
    """Stand for the app's own, which is not part of what is copied."""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_router_can_be_copied_with_all_that_it_remembers(strategy: str) -> None:
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    made.apply(ServerSeen(replace(server(), pool=PoolSettings(strategy))), BOOT)
    made.apply(EndpointSeen(pod("p")), BOOT)
    made.on_change = nobody_waits
    request = asks(100, 10)._replace(traits=Traits(100, 10, "session", 7))
    assert isinstance(made.acquire(request, BOOT), Pick)
    copy = pickle.loads(pickle.dumps(made))
    assert isinstance(copy.acquire(request, BOOT), Pick)
    one = copy._registry.endpoints["p"]
    assert (one.meter is UNMETERED) == (made._registry.endpoints["p"].meter is UNMETERED)
    assert (one.in_flight, made.in_flight()) == (2, 1)


def test_the_doors_are_told_what_a_model_s_strategy_needs() -> None:
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    made.apply(ServerSeen(server("plain", ModelSpec("plain"))), BOOT)
    assert made.needs("plain") is None
    settings = PoolSettings("SessionAffinity", session_header="x-chat")
    made.apply(ServerSeen(replace(server("s", ModelSpec("chat", adapters=("lora",))), pool=settings)), BOOT)
    assert made.needs("plain") is None
    assert made.needs("chat") == made.needs("lora", "ns") == Needs(session_header="x-chat")
    assert made.needs("nobody") is None


def test_a_request_that_was_predicted_to_take_for_ever_ends_as_any_other() -> None:
    made = pool(endpoint("e"), strategy="ShortestExpectedCompletion")
    for began, ended in ((0.0, 1e22), (2e22, 2e22), (2e22, 2e22)):
        sent = send(made, asks(1000, 10), began)
        assert sent is not None
        end(sent, Outcome.COMPLETED, ended)
        assert sent[0].in_flight == 0
