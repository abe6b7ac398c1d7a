"""Backups, used only while no other endpoint is available, and adapters, sent to where they are loaded."""

from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import SHAPES, STEPS, Play
from tests.core.world import BOOT, MODEL, endpoint, pick, pod, pool, refused, router, see, server, status

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.loaded import MOST_HOLDERS
from tailrace.core.model import ModelSpec, PoolSettings, Reading, RefusalCode, Request, Traits
from tailrace.core.pool import Pool
from tailrace.core.strategies import STRATEGIES

PICKY = {"PrefixCache", "SessionAffinity"}
"""Those that look at the request: they know better where it should go than where its adapter is loaded."""


def backup(uid: str, capacity: int = 4, memory: int = 80, added: int = 0) -> Endpoint:
    made = endpoint(uid, capacity, memory, added)
    made.backup = True
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(SHAPES, STEPS, st.randoms(use_true_random=False))
def test_a_backup_is_picked_if_and_only_if_no_other_is_available(
    strategy: str, shapes: list[tuple[int, int]], steps: list[tuple[str, int]], rng: Random
) -> None:
    play = Play(shapes, strategy)
    play.pool = Pool(PoolSettings(strategy), Random(0))
    for each in play.all:
        each.backup = rng.random() < 0.5
        each.pools, each.sources = [], ()
        play.pool.add(each)
    for step in steps:
        if (picked := play.step(*step)) is not None:
            able, chosen = picked
            if chosen is not None:
                assert chosen.backup == all(each.backup for each in able)
            play.take(chosen)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_backup_is_subject_to_every_filter(strategy: str) -> None:
    spare, small = backup("spare"), backup("small", memory=24, added=1)
    small.adapters = frozenset({"lora"})
    made = pool(endpoint("gone", ready=False), spare, small, strategy=strategy)
    assert made.pick(5000) is spare
    assert made.pick(5000, avoid=frozenset({"spare"})) is None
    assert made.pick(1, "lora") is small
    small.on(Event.DRAIN)
    assert made.pick(1, "lora") is None
    made.remove(spare)
    assert made.pick(1) is None
    assert spare.sources == ()


def test_a_retry_goes_to_a_backup_when_every_other_was_tried() -> None:
    made = pool(endpoint("a"), backup("spare", added=1))
    assert made.pick(1, avoid=frozenset({"a"})) is made.endpoints["spare"]


def test_a_hard_session_waits_for_its_endpoint_and_is_no_reason_to_use_a_backup() -> None:
    made = Pool(PoolSettings("SessionAffinity", hard_sessions=True), Random(0))
    for each in (endpoint("a", 1), endpoint("b", 2, added=1), backup("spare", added=2)):
        made.add(each)
    request = Request(MODEL, traits=Traits(session="s"))
    home = made.pick(1, request=request)
    assert home is not None
    made.notes.open(home, request, 0.0)
    while home.available:
        home.take()
    assert made.pick(1, request=request, now=1.0) is None
    for each in made.endpoints.values():
        while not each.backup and each.available:
            each.take()
    assert made.pick(1, request=request, now=1.0) is made.endpoints["spare"]


def test_backups_take_turns_as_the_strategy_says() -> None:
    made = pool(*(backup(f"b{n}", 9, added=n) for n in range(3)), strategy="RoundRobin")
    assert [take(made, None) for _ in range(6)] == ["b0", "b1", "b2"] * 2


def test_an_endpoint_becomes_a_backup_and_an_ordinary_one_again() -> None:
    made = router(pod("a", capacity=9), pod("b", capacity=1))
    see(made, BOOT, replace(pod("a", capacity=9, version=2), backup=True))
    assert [pick(made).uid for _ in range(2)] == ["b", "a"]
    see(made, BOOT, pod("a", capacity=9, version=3), replace(pod("b", capacity=1, version=2), backup=True))
    assert [pick(made).uid for _ in range(3)] == ["a", "a", "a"]


def test_backups_that_are_full_are_said_to_be_full() -> None:
    made = router(replace(pod("a", capacity=1), backup=True))
    pick(made)
    assert refused(made) is RefusalCode.SATURATED


def test_backups_are_not_compared_when_a_pool_is_graded() -> None:
    made = router(pod("a"), replace(pod("spare"), backup=True))
    pick(made)
    made.judge(BOOT)
    made.judge(BOOT + 100)
    (found,) = made.quality()
    assert found.load is None  # one endpoint alone


# Adapters


def tuned(count: int, capacity: int = 10) -> list[Endpoint]:
    made = [endpoint(f"e{n}", capacity, 80, n) for n in range(count)]
    for each in made:
        each.adapters = frozenset({"x", "y"})
    return made


def has(each: Endpoint, *adapters: str) -> None:
    each.hear(Reading(running=0, waiting=0, adapters=frozenset(adapters)))


def take(made: Pool, adapter: str | None) -> str:
    chosen = made.pick(1, adapter, request=Request(MODEL, traits=Traits(1)))
    assert chosen is not None
    chosen.take()
    return chosen.uid


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - PICKY))
def test_an_adapter_goes_to_where_it_is_loaded_until_that_fills_up(strategy: str) -> None:
    all_of = tuned(4)
    made = pool(*all_of, strategy=strategy)
    has(all_of[2], "x")
    assert [take(made, "x") for _ in range(8)] == ["e2"] * 8
    assert take(made, "x") != "e2" or strategy in {"RoundRobin", "WeightedRoundRobin"}


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - PICKY))
def test_of_those_who_have_it_loaded_the_strategy_chooses(strategy: str) -> None:
    all_of = tuned(4)
    made = pool(*all_of, strategy=strategy)
    has(all_of[1], "x", "y")
    has(all_of[3], "x")
    taken = [take(made, "x") for _ in range(10)]
    assert set(taken) == {"e1", "e3"}
    assert 3 <= taken.count("e1") <= 7 or strategy in {"PowerOfTwoChoices", "LeastEstimatedTTFT", "LeastTokens"} | {
        "ShortestExpectedCompletion"
    }


def test_who_has_it_loaded_and_is_full_draining_or_too_small_is_passed_over() -> None:
    all_of = tuned(4, 1)
    made = pool(*all_of)
    for each in all_of[:3]:
        has(each, "x")
    all_of[0].take()
    all_of[1].on(Event.DRAIN)
    assert made.pick(1, "x", avoid=frozenset({"e2"})) is all_of[3]
    assert made.pick(1, "x") is all_of[2]
    all_of[2].adapters = frozenset()  # no longer one that the spec says it serves
    assert made.pick(1, "x") is all_of[3]


def test_who_has_it_loaded_but_too_little_memory_gets_no_long_prompt() -> None:
    small, large = endpoint("small", 10, 24), endpoint("large", 10, 80, 1)
    made = pool(small, large)
    for each in (small, large):
        each.adapters = frozenset({"x"})
    has(small, "x")
    assert made.pick(5000, "x") is large
    spare = backup("spare", 10, added=2)
    spare.adapters = frozenset({"x"})
    made.add(spare)
    has(spare, "x")
    has(small)
    assert made.pick(1, "x") is large  # a backup stays one, whatever it has loaded


def test_what_is_not_known_any_more_is_no_preference() -> None:
    all_of = tuned(3)
    made = pool(*all_of)
    has(all_of[2], "x")
    has(all_of[2], "y")
    assert made.pick(1, "x") is all_of[0]
    all_of[2].hear(None)
    assert made.pick(1, "y") is all_of[0]
    has(all_of[1], "y")
    made.remove(all_of[1])
    assert made.pick(1, "y") is all_of[0]
    assert made._loaded._holders == {}


def test_the_base_model_goes_anywhere() -> None:
    all_of = tuned(3)
    made = pool(*all_of)
    has(all_of[2], "x")
    assert [take(made, None) for _ in range(3)] == ["e0", "e1", "e2"]


def test_an_adapter_that_everybody_has_costs_no_comparison() -> None:
    all_of = tuned(MOST_HOLDERS + 1)
    made = pool(*all_of)
    for each in all_of:
        has(each, "x")
    assert made._loaded.by("x") == ()
    assert made.pick(1, "x") is all_of[0]
    assert made.scans == 0


@pytest.mark.parametrize("strategy", sorted(PICKY))
def test_a_session_or_a_prefix_goes_before_an_adapter(strategy: str) -> None:
    all_of = tuned(6)
    made = pool(*all_of, strategy=strategy)
    request = Request(MODEL, traits=Traits(1, session="s", prefix=77))
    home = made.pick(1, "x", request=request)
    other = next(each for each in all_of if each is not home)
    has(other, "x")
    assert made.pick(1, "x", request=request) is home


def test_engines_are_read_where_a_model_has_adapters_and_the_strategy_can_use_it() -> None:
    def reads(strategy: str, *adapters: str, read: str = "WhenNeeded") -> bool:
        spec = server("s", ModelSpec(MODEL, adapters=adapters))
        return bool(
            router(pod("a"), servers=(replace(spec, pool=PoolSettings(strategy, read_engines=read)),)).engines()
        )

    assert reads("RoundRobin", "lora")
    assert not reads("RoundRobin")
    assert not reads("SessionAffinity", "lora")
    assert not reads("RoundRobin", "lora", read="Never")


def test_a_router_sends_an_adapter_to_where_it_is_loaded() -> None:
    spec = server("s", ModelSpec(MODEL, adapters=("lora",)))
    made = router(pod("a"), pod("b"), servers=(spec,))
    made.engine_told("b", Reading(running=1, waiting=0, adapters=frozenset({"lora"})), BOOT)
    assert status(made, "b").reading is not None
    assert pick(made, model="lora").uid == "b"
    assert pick(made, model=MODEL).uid == "a"
