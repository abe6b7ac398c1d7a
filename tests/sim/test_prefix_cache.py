from dataclasses import replace

import pytest
from tests.sim.virtual import STEADY, drive, first_tokens, sequence

from tailrace.sim.engine import Engine
from tailrace.sim.prefix_cache import PrefixCache, block_chain
from tailrace.sim.sequence import Sequence
from tailrace.sim.tokens import answer_text

BLOCK = 64  # bytes: 16 tokens of 4


def test_only_whole_blocks_are_hashed() -> None:
    assert len(block_chain(b"x" * (3 * BLOCK - 1), "")) == 2


def test_a_block_is_known_only_after_the_same_beginning() -> None:
    same_end = block_chain(b"a" * BLOCK + b"z" * BLOCK, ""), block_chain(b"b" * BLOCK + b"z" * BLOCK, "")
    assert set(same_end[0]).isdisjoint(same_end[1])


def test_a_match_counts_tokens_up_to_the_first_difference() -> None:
    cache = PrefixCache(1000)
    cache.store(block_chain(b"a" * BLOCK * 4, ""))
    assert cache.match(block_chain(b"a" * BLOCK * 2 + b"b" * BLOCK * 5, "")) == 32


def test_adapters_do_not_share_prefixes() -> None:
    cache = PrefixCache(1000)
    cache.store(block_chain(b"a" * BLOCK, "lora"))
    assert cache.match(block_chain(b"a" * BLOCK, "")) == 0


def test_the_least_recently_used_chain_goes_first_and_its_tail_before_its_head() -> None:
    cache = PrefixCache(4 * 16)
    old, new = block_chain(b"o" * BLOCK * 3, ""), block_chain(b"n" * BLOCK * 2, "")
    cache.store(old)
    cache.store(new)
    assert (len(cache), cache.match(old), cache.match(new)) == (4, 32, 32)


def test_a_prompt_larger_than_the_cache_leaves_its_beginning() -> None:
    cache = PrefixCache(2 * 16)
    chain = block_chain(b"x" * BLOCK * 10, "")
    cache.store(chain)
    assert (len(cache), cache.match(chain)) == (2, 32)


def test_cached_tokens_cost_no_prefill() -> None:
    engine = Engine(STEADY)
    shared = sequence("b", 160, shared="same")
    seen = drive(engine, [(0, sequence("a", 160, shared="same")), (10, shared)])
    assert shared.cached_tokens == 144  # nine of ten blocks: the last token is always computed
    assert first_tokens(seen)["b"] == pytest.approx(10 + 0.016 + 0.050)
    assert (engine.counters.prefix_queries, engine.counters.prefix_hits) == (320, 144)


def test_equal_prompts_that_arrive_together_are_computed_once() -> None:
    twins = [sequence(name, 160, shared="same") for name in "ab"]
    drive(Engine(STEADY), [(0, twin) for twin in twins])
    assert [twin.cached_tokens for twin in twins] == [0, 144]


def test_the_next_turn_of_a_conversation_finds_the_answer_cached_too() -> None:
    prompt = b"q" * BLOCK * 4
    reply = answer_text(100).encode()
    engine = Engine(STEADY)
    second = Sequence("2", prompt + reply + b"\nmore", 1)
    drive(engine, [(0, Sequence("1", prompt, 100)), (10, second)])
    assert second.cached_tokens == (len(prompt) + len(reply)) // BLOCK * 16


def test_a_cache_of_no_size_never_hits() -> None:
    engine = Engine(replace(STEADY, prefix_cache_tokens=0))
    again = sequence("b", 160, shared="same")
    drive(engine, [(0, sequence("a", 160, shared="same")), (10, again)])
    assert again.cached_tokens == 0


def test_a_prompt_cancelled_before_its_prefill_ended_is_not_cached() -> None:
    engine = Engine(STEADY)
    gone, again = sequence("a", 160, shared="same"), sequence("b", 160, shared="same")
    drive(engine, [(0, gone)], until=0.1)
    engine.cancel(gone, 0.1)
    drive(engine, [(1, again)])
    assert again.cached_tokens == 0
