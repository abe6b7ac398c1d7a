"""Explaining a pick: it agrees with the pick that follows, changes nothing, and says what speaks against the others."""

import pickle
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tests.core.play import SHAPES
from tests.core.world import BOOT, ME, MODEL, pod, router, server

from tailrace.core.model import (
    Candidate,
    EndpointSeen,
    EndpointState,
    Explanation,
    ModelSpec,
    Outcome,
    Pick,
    Place,
    PoolSettings,
    Reading,
    Refusal,
    RefusalCode,
    Request,
    ServerSeen,
    Standing,
    Traits,
)
from tailrace.core.router import Router
from tailrace.core.strategies import STRATEGIES

STEPS = st.lists(st.tuples(st.sampled_from("pppppbfurwt"), st.integers(0, 10**6)), max_size=40)
"""p: pick; b: a first byte; f: an end; u: a pod becomes unready; r: one becomes ready; w: time passes; t: an engine
tells of itself."""


def nobody_waits() -> None:
    """Stand for who would be told of changes, and can be stored."""


class History:
    """A router that steps are played on."""

    def __init__(self, strategy: str, shapes: list[tuple[int, int]], *, hard: bool = False) -> None:
        self.router = Router(ME, booted_at=BOOT, rng=Random(3))
        self.router.on_change = nobody_waits
        self.router.set_place(Place(zone="z1"))
        pool = PoolSettings(strategy, hard_sessions=hard, weight_by="Hardware")
        adapters = ModelSpec(MODEL, adapters=("lora",))
        self.router.apply(ServerSeen(replace(server("s", adapters), pool=pool)), BOOT)
        self.shapes = shapes
        self.active: list[str] = []
        self.now = BOOT
        self.version = 1
        for number in range(len(shapes)):
            self.see(number, ready=True)

    def see(self, number: int, *, ready: bool) -> None:
        capacity, memory = self.shapes[number]
        self.version += 1
        spec = pod(f"e{number}", capacity=capacity, memory=memory, ready=ready, version=self.version)
        spare = len(self.shapes) < 9 and number % 4 == 3
        self.router.apply(EndpointSeen(replace(spec, backup=spare, zone=f"z{number % 2}")), self.now)

    def tell(self, number: int) -> None:
        rng = Random(number)
        adapters = frozenset({"lora"} if rng.random() < 0.3 else ())
        reading = Reading(rng.randrange(5), rng.randrange(3), kv_usage=rng.random(), adapters=adapters)
        self.router.engine_told(f"e{number % len(self.shapes)}", reading, self.now)

    def request(self, number: int) -> Request:
        rng = Random(number % 7)
        chain = tuple(rng.getrandbits(60) for _ in range(number % 5 * 4))
        prompt = 128 * len(chain) + number % 300 + 1
        session = f"s{number % 3}" if number % 2 else ""
        traits = Traits(prompt, number % 90, session, number % 4 or None, chain, streams=number % 3 > 0)
        model = "lora" if number % 11 == 0 else MODEL
        return Request(model, 5000 if number % 6 == 0 else prompt, leased=number % 5 == 0, traits=traits)

    def play(self, what: str, number: int) -> Pick | Refusal | None:
        if what == "p":
            answer = self.router.acquire(self.request(number), self.now)
            self.active += [answer.attempt] if isinstance(answer, Pick) else []
            return answer
        if what in "bf" and self.active:
            self._go_on(what, number)
        elif what in "ur":
            self.see(number % len(self.shapes), ready=what == "r")
        elif what == "t":
            self.tell(number)
        elif what == "w":
            self.now += number % 50 / 10
        return None

    def _go_on(self, what: str, number: int) -> None:
        attempt = self.active[number % len(self.active)]
        self.now += 0.01
        if what == "b":
            self.router.first_byte(attempt, self.now)
        else:
            self.active.remove(attempt)
            self.router.release(attempt, Outcome.COMPLETED, self.now)

    def explain(self, number: int) -> Explanation:
        return self.router.explain(self.request(number), self.now)


def picked(explanation: Explanation) -> str | None:
    found = [each.uid for each in explanation.candidates if each.standing is Standing.PICKED]
    assert len(found) <= 1
    assert bool(found) is (explanation.refusal is None)
    return found[0] if found else None


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25)
@given(shapes=SHAPES, steps=STEPS, hard=st.booleans())
def test_the_pick_that_follows_is_the_one_explained_by_chance_too(
    strategy: str, shapes: list[tuple[int, int]], steps: list[tuple[str, int]], *, hard: bool
) -> None:
    history = History(strategy, shapes, hard=hard)
    for what, number in steps:
        explanation = history.explain(number) if what == "p" else None
        answer = history.play(what, number)
        if explanation is not None:
            assert explanation.refusal == (answer if isinstance(answer, Refusal) else None)
            assert picked(explanation) == (answer.uid if isinstance(answer, Pick) else None)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25)
@given(shapes=SHAPES, steps=STEPS, asked=st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_explaining_changes_nothing(
    strategy: str, shapes: list[tuple[int, int]], steps: list[tuple[str, int]], asked: list[int]
) -> None:
    told, plain = History(strategy, shapes), History(strategy, shapes)
    for what, number in steps:
        for each in asked:
            told.explain(each)
        stored = pickle.dumps(told.router)
        told.explain(number)
        assert pickle.dumps(told.router) == stored
        mine, theirs = told.play(what, number), plain.play(what, number)
        assert mine == theirs
    for history in (told, plain):
        history.router.releasable(history.now)  # books what the clock has ended, as explaining did
    assert told.router.status() == plain.router.status()


def against(explanation: Explanation, uid: str) -> tuple[str, ...]:
    found: Candidate = next(each for each in explanation.candidates if each.uid == uid)
    assert (found.standing is Standing.FILTERED) is bool(found.against)
    return found.against


def test_each_filter_says_why() -> None:
    lora = ModelSpec(MODEL, adapters=("lora",))
    bare = replace(server("bare"), created_at=2.0)
    of = router(
        pod("small", memory=24),
        pod("unlabelled", memory=None),
        pod("starting", ready=False),
        pod("leaving", deleted_at=BOOT),
        pod("full", capacity=1),
        pod("bare", of="ns/bare"),
        pod("tried"),
        pod("good"),
        servers=(server("s", lora), bare, server("other", ModelSpec("other"))),
    )
    while not any(e.uid == "full" and e.in_flight for e in of.status().endpoints):
        of.acquire(Request(MODEL, avoid=frozenset({"small", "unlabelled", "bare", "tried", "good"})), BOOT)
    explanation = of.explain(Request("lora", 5000, avoid=frozenset({"tried"})), BOOT)
    assert picked(explanation) == "good"
    assert against(explanation, "small") == ("GPU memory 24 GB; more than 4096 tokens need 80 GB",)
    assert against(explanation, "unlabelled") == ("GPU memory unknown; more than 4096 tokens need 80 GB",)
    assert against(explanation, "starting") == ("it is starting: is loading",)
    assert against(explanation, "leaving") == ("it is draining",)
    assert against(explanation, "full") == ("no free slot: 1 of 1 are taken",)
    assert against(explanation, "bare") == ("the adapter 'lora' is not loaded",)
    assert against(explanation, "tried") == ("an earlier attempt was there",)


def test_a_backup_is_said_to_be_one_only_while_others_are_available() -> None:
    of = router(pod("a", capacity=1), replace(pod("spare", capacity=1), backup=True))
    assert against(of.explain(Request(MODEL), BOOT), "spare") == ("it is a backup, and others are available",)
    of.acquire(Request(MODEL), BOOT)
    assert picked(of.explain(Request(MODEL), BOOT)) == "spare"
    of.acquire(Request(MODEL), BOOT)
    assert against(of.explain(Request(MODEL), BOOT), "spare") == ("no free slot: 1 of 1 are taken",)


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("SlotBased", {"score": -5, "sentSince": 0, "slots": 8, "running": 2, "waiting": 1, "tokensOutstanding": 0}),
        ("DynamicScore", {"gpu": 0.375, "memory": 0.5, "queue": 1, "slowness": 1, "unknown": 0}),
        ("Locality", {"score": 2, "distance": 2, "loadRatio": 0}),
        ("LeastEstimatedTTFT", {"kvSeconds": 0}),
    ],
)
def test_what_engines_and_places_say_is_part_of_a_score(strategy: str, parts: dict[str, float]) -> None:
    of = router(pod("a"), servers=(server(strategy=strategy),))
    of.engine_told("a", Reading(2, 1, slots=8, kv_usage=0.5), BOOT)
    found = of.explain(Request(MODEL), BOOT).candidates[0].parts
    if strategy == "DynamicScore":
        assert found["score"] == pytest.approx(30 * 0.375 + 30 * 0.5 + 2 * 1 + 20, abs=0.01)
    assert {name: found.get(name, 0) for name in parts} == parts


def test_endpoints_of_other_models_are_counted() -> None:
    of = router(pod("a"), pod("b", of="ns/other"), servers=(server(), server("other", ModelSpec("other"))))
    explanation = of.explain(Request(MODEL), BOOT)
    assert [each.uid for each in explanation.candidates] == ["a"]
    assert explanation.elsewhere == 1


def test_a_name_that_leads_nowhere_is_refused_as_a_pick_would_be() -> None:
    explanation = router(pod("a")).explain(Request("nobody"), BOOT)
    assert explanation.refusal is not None
    assert explanation.refusal.code is RefusalCode.UNKNOWN_MODEL
    assert (explanation.candidates, explanation.elsewhere) == ((), 1)


@pytest.mark.parametrize("strategy", ["LeastEstimatedTTFT", "ShortestExpectedCompletion"])
def test_those_compared_come_in_the_order_of_their_scores(strategy: str) -> None:
    history = History(strategy, [(4, 80)] * 4)
    for number in (13, 26, 38, 7, 14):
        history.play("p", number)
    explanation = history.explain(14)
    compared = [each for each in explanation.candidates if each.standing in (Standing.PICKED, Standing.COMPARED)]
    scores = [each.parts["score"] for each in compared]
    assert len(set(scores)) > 1
    assert scores == sorted(scores)


def test_an_estimate_of_the_first_token_is_given_in_seconds() -> None:
    history = History("LeastEstimatedTTFT", [(4, 80)])
    parts = history.explain(14).candidates[0].parts
    least = parts["uncachedTokens"] / parts["prefillTokensPerSecond"]
    assert least * 0.99 < parts["score"] < least * 3
    assert (parts["pendingTokens"], parts["loadRatio"]) == (0, 0)


def test_a_speed_is_said_to_be_a_guess_until_first_bytes_have_told_it() -> None:
    of = router(pod("a"), servers=(server(strategy="LeastEstimatedTTFT"),))
    streamed = Request(MODEL, 2000, traits=Traits(prompt_tokens=2000, streams=True))
    guessed = []
    for turn in range(3):
        guessed.append(of.explain(streamed, BOOT).candidates[0].parts["speedGuessed"])
        answer = of.acquire(streamed, BOOT + turn)
        assert isinstance(answer, Pick)
        of.first_byte(answer.attempt, BOOT + turn + 0.2)
        of.release(answer.attempt, Outcome.COMPLETED, BOOT + turn + 0.2)
    assert guessed == [1, 1, 0]


def test_the_load_ratio_is_the_score_of_the_usual_strategy() -> None:
    of = router(pod("a", capacity=4), pod("b", capacity=2))
    for _ in range(2):
        of.acquire(Request(MODEL), BOOT)
    ratios = {
        each.uid: (each.state, each.in_flight, each.limit, each.parts)
        for each in of.explain(Request(MODEL), BOOT).candidates
    }
    assert ratios == {
        "a": (EndpointState.READY, 1, 4, {"score": 0.25}),
        "b": (EndpointState.READY, 1, 2, {"score": 0.5}),
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_too_many_refusals_are_explained_as_they_are_picked(strategy: str) -> None:
    history = History(strategy, [(2, 80)] * 80)
    bare = replace(server("bare"), created_at=2.0, pool=PoolSettings(strategy))
    history.router.apply(ServerSeen(bare), BOOT)
    for number in range(80):
        history.router.apply(EndpointSeen(pod(f"e{number}", of="ns/bare", capacity=2, version=999)), BOOT)
    history.see(41, ready=True)
    history.router.apply(EndpointSeen(pod("able", capacity=2)), BOOT)
    request = Request("lora", 1, traits=Traits(1, 1, "s", 7))
    explanation = history.router.explain(request, BOOT)
    answer = history.router.acquire(request, BOOT)
    assert isinstance(answer, Pick)
    assert picked(explanation) == answer.uid == "able"
