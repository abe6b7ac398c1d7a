"""The rules of others, each at the points where its publisher says what it does."""

from random import Random

from tailrace.simulate.engine import Engine, Hardware, Job
from tailrace.simulate.peers import (
    BlockCosts,
    BoundedHash,
    CacheAware,
    CacheAwareLeastLoaded,
    Oracle,
    WeightedScorers,
)
from tailrace.simulate.trace import Arrival

BLOCK = 128


def engines(*loads: int) -> list[Engine]:
    """Return engines with so many requests each."""
    made = [Engine(Hardware(), BLOCK) for _ in loads]
    for engine, load in zip(made, loads, strict=True):
        for number in range(load):
            engine.submit(Job(number, Arrival(0.0, 1000, 100), 0.0), 0.0)
    return made


def prompt(*chain: int) -> Arrival:
    return Arrival(0.0, len(chain) * BLOCK, 1, chain)


def test_bounded_hash_keeps_a_first_block_together_below_125_percent_of_the_mean() -> None:
    rule = BoundedHash(4, BLOCK, Random(0))
    idle = engines(0, 0, 0, 0)
    home = rule(prompt(7, 1), idle)
    assert {rule(prompt(7, number), idle) for number in range(20)} == {home}
    assert len({rule(prompt(number), idle) for number in range(50)}) == 4
    busy = engines(*(10 if number == home else 4 for number in range(4)))
    assert rule(prompt(7, 1), busy) != home
    rule.ended(prompt(7), home)


def test_cache_aware_follows_a_match_of_more_than_half_and_else_the_smallest_tree() -> None:
    rule = CacheAware(3, BLOCK, Random(0))
    fleet = engines(0, 0, 0)
    assert [rule(prompt(*range(n * 10, n * 10 + 4)), fleet) for n in range(3)] == [0, 1, 2]
    assert rule(prompt(10, 11, 12, 99), fleet) == 1
    assert rule(prompt(10, 11, 98, 97), fleet) == 0, "half is not more than half"
    rule.ended(prompt(1), 0)


def test_cache_aware_takes_the_shortest_queue_when_loads_differ_by_more_than_64_and_half() -> None:
    rule = CacheAware(2, BLOCK, Random(0))
    rule(prompt(1, 2), engines(0, 0))
    assert rule(prompt(1, 2), engines(64, 0)) == 0
    assert rule(prompt(1, 2), engines(65, 0)) == 1
    assert rule(prompt(1, 2), engines(200, 135)) == 0, "65 more, but not one and a half times as many"


def test_weighted_scorers_add_prefix_queue_and_memory() -> None:
    rule = WeightedScorers(2, BLOCK, Random(0))
    idle = engines(0, 0)
    home = rule(prompt(1, 2, 3, 4), idle)
    assert {rule(prompt(1, 2, 3, 4), idle) for _ in range(10)} == {home}
    busy = engines(*(30 if number == home else 0 for number in range(2)))
    later = rule.SCRAPE_SECONDS
    assert rule(prompt(1, 2, 3, 4), busy, later) == home, "3 for the prefix against 2 for the queue and a little memory"
    assert rule(prompt(1, 9, 8, 7), busy, 2 * later) != home


def test_weighted_scorers_see_gauges_as_they_were_read_last() -> None:
    rule = WeightedScorers(2, BLOCK, Random(0))
    rule(prompt(1), engines(0, 0), 1.0)
    busy = engines(30, 0)
    assert {rule(prompt(10 + n), busy, 1.0 + 0.9 * rule.SCRAPE_SECONDS) for n in range(20)} == {0, 1}
    assert {rule(prompt(40 + n), busy, 1.0 + rule.SCRAPE_SECONDS) for n in range(20)} == {1}


def test_smg_takes_a_shorter_match_and_else_the_least_loaded() -> None:
    rule = CacheAwareLeastLoaded(3, BLOCK, Random(0))
    assert rule(prompt(1, 2, 3, 4), engines(1, 0, 1)) == 1
    assert rule(prompt(1, 2, 8, 9), engines(0, 9, 0)) == 1, "half is more than three in ten"
    assert rule(prompt(1, 7, 8, 9), engines(3, 9, 2)) == 2


def test_block_costs_add_prompts_under_way_what_is_not_cached_and_what_decodes() -> None:
    rule = BlockCosts(2, BLOCK, Random(0))
    fleet = engines(0, 0)
    long = prompt(*range(12))
    first = rule(long, fleet)
    other = 1 - first
    assert rule(prompt(20, 21), fleet) == other
    rule.began(prompt(20, 21), other)
    rule.began(long, first)
    for block in range(30, 38):
        assert rule(prompt(block), fleet) == other, "nothing is to be computed, and 12 blocks decode against 2 to 9"
        rule.began(prompt(block), other)
    rule.ended(long, first)
    assert rule(prompt(40), fleet) == first
    fleet[other].submit(Job(0, prompt(*range(50, 80)), 0.0), 0.0)
    fleet[other].advance(fleet[other].next_event())
    assert rule(prompt(*range(50, 80)), fleet) == other, "the engine tells that its cache has them"


def test_the_oracle_picks_whoever_answers_first() -> None:
    rule, fleet = Oracle(3, BLOCK, Random(0)), engines(0, 0, 0)
    assert {rule(prompt(1, 2), fleet) for _ in range(50)} == {0, 1, 2}
    fleet[0].submit(Job(0, Arrival(0.0, 8000, 10), 0.0), 0.0)
    fleet[1].submit(Job(1, Arrival(0.0, 4000, 10), 0.0), 0.0)
    fleet[2].submit(Job(2, Arrival(0.0, 4000, 10), 0.0), 0.4)
    assert rule(prompt(1, 2), fleet, 0.4) == 1
    assert rule(prompt(*range(80)), fleet, 0.4) == 1
    fleet[0].submit(Job(3, prompt(*range(80)), 0.0), 0.4)
    assert rule(prompt(*range(80)), fleet, 0.4) == 1
    fleet[1].submit(Job(4, Arrival(0.0, 8000, 10), 0.0), 0.4)
    assert rule(prompt(*range(80)), fleet, 0.4) == 2, "sooner computed here than remembered there"
    fleet[2].submit(Job(5, Arrival(0.0, 13_000, 10), 0.0), 0.4)
    assert rule(prompt(*range(80)), fleet, 0.4) == 0, "what is on its way will be remembered"
