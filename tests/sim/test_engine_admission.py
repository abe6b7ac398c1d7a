from dataclasses import replace

import pytest
from tests.sim.virtual import STEADY, drive, first_tokens, sequence

from tailrace.sim.engine import NEVER, Engine, TooLargeError
from tailrace.sim.sequence import Sequence


def submit_all(engine: Engine, *sequences: Sequence) -> None:
    for each in sequences:
        engine.submit(each, 0)


def test_no_more_sequences_run_than_there_are_slots() -> None:
    engine = Engine(STEADY)
    submit_all(engine, *(sequence(name) for name in "abcdef"))
    assert (engine.running, engine.waiting) == (4, 2)


def test_the_queue_is_first_in_first_out() -> None:
    engine = Engine(replace(STEADY, max_num_seqs=1))
    starts = first_tokens(drive(engine, [(0.001 * n, sequence(name)) for n, name in enumerate("dacb")]))
    assert list(starts) == list("dacb")


def test_a_request_waits_while_its_prompt_and_answer_do_not_fit_in_the_kv_cache() -> None:
    engine = Engine(replace(STEADY, kv_tokens=250))
    submit_all(engine, sequence("a", 100, max_tokens=50), sequence("b", 80, max_tokens=21))
    assert (engine.running, engine.waiting) == (1, 1)
    drive(engine)
    assert (engine.running, engine.waiting) == (0, 0)


def test_the_head_of_the_queue_is_not_overtaken_by_one_that_would_fit() -> None:
    engine = Engine(replace(STEADY, kv_tokens=250))
    submit_all(engine, sequence("a", 200), sequence("big", 100), sequence("small", 10))
    assert (engine.running, engine.waiting) == (1, 2)
    assert list(first_tokens(drive(engine))) == ["a", "big", "small"]


def test_a_request_that_can_never_fit_is_refused_and_says_by_how_much() -> None:
    engine = Engine(replace(STEADY, kv_tokens=100))
    with pytest.raises(TooLargeError, match=r"prompt \(90 tokens\).*answer \(11\).*100 tokens"):
        engine.submit(sequence("a", 90, max_tokens=11), 0)
    assert engine.waiting == 0


def test_kv_usage_grows_with_the_answer_and_returns_to_nothing() -> None:
    engine = Engine(replace(STEADY, kv_tokens=1000))
    drive(engine, [(0, sequence("a", 100, max_tokens=50))], until=0.150 + 0.095)
    assert engine.kv_usage == pytest.approx(0.110)
    drive(engine)
    assert engine.kv_usage == 0


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.12, 0.155, 0.3], ids=["new", "prefill", "base", "decode", "late"])
def test_cancelling_frees_the_slot_at_once_in_every_stage(moment: float) -> None:
    engine = Engine(replace(STEADY, max_num_seqs=1))
    gone, heir = sequence("gone", 100, max_tokens=100), sequence("heir", 100)
    drive(engine, [(0, gone), (0, heir)], until=moment)
    engine.cancel(gone, moment)
    assert (engine.running, engine.waiting) == (1, 0)
    seen = drive(engine)
    assert {token.id for token in seen} == {"heir"}
    assert first_tokens(seen)["heir"] == pytest.approx(moment + 0.150)


def test_cancelling_one_that_waits_lets_the_next_move_up() -> None:
    engine = Engine(replace(STEADY, max_num_seqs=1))
    waiting = sequence("b")
    submit_all(engine, sequence("a"), waiting, sequence("c"))
    engine.cancel(waiting, 0)
    assert list(first_tokens(drive(engine))) == ["a", "c"]


def test_cancelling_one_that_waits_for_its_prefill_leaves_the_others_alone() -> None:
    engine = Engine(STEADY)
    second = sequence("b", 500)
    submit_all(engine, sequence("a"), second, sequence("c"))
    engine.cancel(second, 0.01)
    assert first_tokens(drive(engine)) == pytest.approx({"a": 0.150, "c": 0.250})


def test_cancelling_twice_or_after_the_end_changes_nothing() -> None:
    engine = Engine(STEADY)
    ended = sequence("a")
    drive(engine, [(0, ended)])
    engine.cancel(ended, 1)
    engine.cancel(ended, 2)
    assert (engine.running, engine.waiting, engine.next_event()) == (0, 0, NEVER)


def test_an_idle_engine_has_nothing_to_do() -> None:
    engine = Engine(STEADY)
    assert engine.next_event() == NEVER
    assert engine.advance(1000) == []
