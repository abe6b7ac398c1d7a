from dataclasses import replace
from itertools import pairwise

import pytest
from tests.sim.virtual import STEADY, Seen, drive, first_tokens, sequence

from tailrace.sim.engine import Engine


def gaps(seen: list[Seen], name: str) -> list[float]:
    times = [token.at for token in seen if token.id == name]
    return [later - earlier for earlier, later in pairwise(times)]


def test_ttft_of_an_idle_engine_is_prefill_time_plus_base() -> None:
    seen = drive(Engine(STEADY), [(1.0, sequence("a", prompt_tokens=200))])
    assert first_tokens(seen)["a"] == pytest.approx(1.0 + 0.200 + 0.050)


def test_prompts_share_the_prefill_speed_one_after_the_other() -> None:
    seen = drive(Engine(STEADY), [(0, sequence("a", 100)), (0, sequence("b", 300)), (0, sequence("c", 50))])
    assert first_tokens(seen) == pytest.approx({"a": 0.150, "b": 0.450, "c": 0.500})


def test_a_request_that_waits_for_a_slot_has_the_wait_in_its_ttft() -> None:
    engine = Engine(replace(STEADY, max_num_seqs=1))
    seen = drive(engine, [(0, sequence("a", 100, max_tokens=6)), (0, sequence("b", 100))])
    a_ends = next(token.at for token in seen if token.id == "a" and token.last)
    assert first_tokens(seen)["b"] == pytest.approx(a_ends + 0.100 + 0.050)


def test_tokens_of_a_lone_sequence_come_one_itl_apart() -> None:
    seen = drive(Engine(STEADY), [(0, sequence("a", max_tokens=20))])
    assert gaps(seen, "a") == pytest.approx([0.010] * 19)


def test_inter_token_latency_grows_with_the_running_batch() -> None:
    engine = Engine(replace(STEADY, itl_growth=0.5, prefill_tokens_per_second=1e9))
    seen = drive(engine, [(0, sequence(name, max_tokens=10)) for name in "abc"])
    assert gaps(seen, "a")[-1] == pytest.approx(0.010 * 2)


def test_a_sequence_joins_the_batch_with_the_next_step_and_waits_at_most_one() -> None:
    seen = drive(Engine(STEADY), [(0, sequence("a", max_tokens=50)), (0.1, sequence("b", 53, max_tokens=5))])
    assert 0.010 <= gaps(seen, "b")[0] < 0.020 + 1e-9
    assert gaps(seen, "b")[1:] == pytest.approx([0.010] * 3)


def test_a_late_caller_gets_every_token_and_the_pace_does_not_drift() -> None:
    engine = Engine(STEADY)
    engine.submit(sequence("a", 100, max_tokens=100), 0)
    assert [token.generated for token in engine.advance(0.150 + 0.035)] == [1, 2, 3, 4]
    assert engine.next_event() == pytest.approx(0.150 + 0.040)


def test_a_request_for_no_tokens_ends_with_its_prefill() -> None:
    seen = drive(Engine(STEADY), [(0, sequence("a", 100, max_tokens=0))])
    assert [(token.generated, token.last) for token in seen] == [(0, True)]
    assert seen[0].at == pytest.approx(0.150)


def test_every_token_is_given_once_and_in_order() -> None:
    seen = drive(Engine(STEADY), [(0.03 * n, sequence(f"s{n}", 40, max_tokens=7)) for n in range(12)])
    for n in range(12):
        mine = [token for token in seen if token.id == f"s{n}"]
        assert [token.generated for token in mine] == [1, 2, 3, 4, 5, 6, 7]
        assert [token.last for token in mine] == [False] * 6 + [True]


def jittered(seed: int) -> list[Seen]:
    engine = Engine(replace(STEADY, jitter=0.3), seed)
    return drive(engine, [(0.01 * n, sequence(f"s{n}", 30 + n)) for n in range(8)])


def test_equal_seeds_give_equal_runs() -> None:
    assert jittered(7) == jittered(7)


def test_different_seeds_give_different_times() -> None:
    assert first_tokens(jittered(7)) != first_tokens(jittered(8))


def test_jitter_stays_within_its_bound() -> None:
    engine = Engine(replace(STEADY, jitter=0.3), seed=1)
    deviations = gaps(drive(engine, [(0, sequence("a", max_tokens=200))]), "a")
    assert all(0.007 <= gap <= 0.013 for gap in deviations)
    assert max(deviations) - min(deviations) > 0.003


def test_a_stalled_sequence_yields_nothing_and_goes_on_where_it_stopped() -> None:
    engine = Engine(STEADY)
    stuck = sequence("a", 100, max_tokens=5)
    drive(engine, [(0, stuck)], until=0.165)
    stuck.stalled = True
    assert drive(engine, until=0.5) == []
    assert engine.running == 1
    stuck.stalled = False
    assert [token.generated for token in drive(engine)] == [3, 4, 5]


def test_a_sequence_stalled_from_the_beginning_still_gives_every_token_later() -> None:
    engine = Engine(STEADY)
    stuck = sequence("a", max_tokens=3)
    stuck.stalled = True
    assert drive(engine, [(0, stuck)], until=1) == []
    stuck.stalled = False
    assert [token.generated for token in drive(engine)] == [1, 2, 3]
