import pytest

from tailrace.engines.gauges import Gauges
from tailrace.gate.decision import Ended, HelloPlan, Hold, Limits
from tailrace.gate.protocol import Answer, Fault

LIMITS = Limits(timeout=600)
IDLE, BUSY, QUEUED = Gauges(0, 0), Gauges(1, 0), Gauges(0, 1)
DRAINING = Answer("draining", 3, safe_to_delete=False)
IDLE_NOT_SAFE = Answer("draining", 0, safe_to_delete=False)
SAFE = Answer("drained", 0, safe_to_delete=True)
DOWN = Fault("refused")


def hold() -> Hold:
    return Hold(LIMITS, now=0.0)


def read_all(held: Hold, *readings: tuple[float, Gauges | None]) -> None:
    for now, gauges in readings:
        held.read(gauges, now)


def test_a_fresh_hold_does_not_end() -> None:
    assert hold().ended(0.0) is None


def test_a_router_that_says_safe_ends_it_at_once() -> None:
    held = hold()
    held.heard("a", SAFE, 0.1)
    assert held.ended(0.1) is Ended.DRAINED


def test_any_one_router_answers_for_all() -> None:
    held = hold()
    held.heard("a", DRAINING, 1.0)
    held.heard("b", SAFE, 1.0)
    assert held.ended(1.0) is Ended.DRAINED


@pytest.mark.parametrize("word", [DRAINING, IDLE_NOT_SAFE, Answer("drained", 0, safe_to_delete=False), DOWN])
def test_nothing_else_a_router_says_ends_it(word: Answer | Fault) -> None:
    held = hold()
    held.heard("a", word, 1.0)
    assert held.ended(599.9) is None


def test_the_deadline_ends_it_and_not_a_moment_earlier() -> None:
    held = hold()
    held.heard("a", DRAINING, 1.0)
    assert held.ended(599.999) is None
    assert held.ended(600.0) is Ended.DEADLINE


def test_the_deadline_counts_from_the_start_of_the_hook() -> None:
    held = Hold(LIMITS, now=1000.0)
    assert held.deadline == 1600.0
    assert held.ended(1599.0) is None


def test_alone_it_ends_when_the_engine_reads_idle_twice_after_ten_seconds() -> None:
    held = hold()
    read_all(held, (9.5, IDLE), (10.5, IDLE))
    assert held.ended(10.5) is Ended.IDLE


def test_alone_it_holds_for_ten_seconds_however_idle_the_engine_reads() -> None:
    held = hold()
    read_all(held, *((float(second), IDLE) for second in range(1, 10)), (9.99, IDLE))
    assert held.ended(9.99) is None
    held.read(IDLE, 10.0)
    assert held.ended(10.0) is Ended.IDLE


def test_readings_from_before_the_floor_need_one_more_after_it() -> None:
    held = hold()
    read_all(held, (1.0, IDLE), (2.0, IDLE))
    assert held.ended(500.0) is None


def test_one_idle_reading_is_not_enough() -> None:
    held = hold()
    held.read(IDLE, 300.0)
    assert held.ended(599.0) is None


def test_two_idle_readings_must_be_a_second_apart() -> None:
    held = hold()
    read_all(held, (20.0, IDLE), (20.9, IDLE))
    assert held.ended(20.9) is None
    held.read(IDLE, 21.0)
    assert held.ended(21.0) is Ended.IDLE


@pytest.mark.parametrize("between", [BUSY, QUEUED, Gauges(0, 0, held=1), None])
def test_a_reading_that_is_not_idle_starts_the_count_again(between: Gauges | None) -> None:
    held = hold()
    read_all(held, (20.0, IDLE), (21.0, between), (22.0, IDLE))
    assert held.ended(22.0) is None
    held.read(IDLE, 23.0)
    assert held.ended(23.0) is Ended.IDLE


def test_a_busy_engine_holds_to_the_deadline() -> None:
    held = hold()
    read_all(held, *((float(second), BUSY) for second in range(600)))
    assert held.ended(599.0) is None
    assert held.ended(600.0) is Ended.DEADLINE


def test_an_engine_without_gauges_leaves_only_the_deadline() -> None:
    held = hold()
    read_all(held, *((float(second), None) for second in range(600)))
    assert held.ended(599.0) is None
    assert held.ended(600.0) is Ended.DEADLINE


def test_an_idle_engine_does_not_overrule_a_router_in_touch() -> None:
    held = hold()
    held.heard("a", DRAINING, 1.0)
    read_all(held, *((float(second), IDLE) for second in range(2, 600)))
    assert held.ended(599.0) is None


def test_one_router_in_touch_is_enough_to_disregard_the_engine() -> None:
    held = hold()
    held.heard("a", DRAINING, 1.0)
    held.heard("b", DOWN, 1.0)
    read_all(held, (20.0, IDLE), (21.0, IDLE))
    assert not held.alone
    assert held.ended(21.0) is None


def test_a_later_reachable_router_takes_over_again() -> None:
    held = hold()
    held.heard("a", DOWN, 1.0)
    held.read(IDLE, 19.0)
    held.heard("a", DRAINING, 19.5)
    held.read(IDLE, 20.0)
    assert held.ended(20.0) is None
    held.heard("a", SAFE, 21.0)
    assert held.ended(21.0) is Ended.DRAINED


def test_losing_the_last_router_starts_the_ten_seconds_again() -> None:
    held = hold()
    held.heard("a", DRAINING, 1.0)
    held.heard("a", DOWN, 100.0)
    read_all(held, (101.0, IDLE), (102.0, IDLE), (109.9, IDLE))
    assert held.ended(109.9) is None
    held.read(IDLE, 110.0)
    assert held.ended(110.0) is Ended.IDLE


def test_a_router_that_stays_away_does_not_start_the_ten_seconds_again() -> None:
    held = hold()
    for second in range(10):
        held.heard("a", DOWN, float(second))
    read_all(held, (9.0, IDLE), (10.0, IDLE))
    assert held.ended(10.0) is Ended.IDLE


def test_an_idle_reading_from_before_a_router_was_in_touch_does_not_count_after_it() -> None:
    held = hold()
    held.read(IDLE, 20.0)
    held.heard("a", DRAINING, 20.1)
    held.heard("a", DOWN, 20.2)
    held.read(IDLE, 40.0)
    assert held.ended(40.0) is None
    held.read(IDLE, 41.0)
    assert held.ended(41.0) is Ended.IDLE


def test_once_ended_it_stays_ended_for_the_same_reason() -> None:
    held = hold()
    held.heard("a", SAFE, 5.0)
    held.heard("a", DRAINING, 6.0)
    assert held.ended(700.0) is Ended.DRAINED


def hello_delays(every: float, *known: bool, jitter: float = 0.0) -> list[float]:
    plan = HelloPlan(every, lambda: jitter)
    return [plan.delay(known=one) for one in known]


def test_hello_backs_off_from_one_to_ten_seconds_until_a_router_answers() -> None:
    assert hello_delays(60, *[False] * 6, True) == [1, 2, 4, 8, 10, 10, 60]


def test_hello_is_quick_again_after_a_router_was_lost() -> None:
    assert hello_delays(60, False, False, True, False) == [1, 2, 60, 1]


def test_hello_never_waits_longer_than_its_period() -> None:
    assert hello_delays(3, False, False, False) == [1, 2, 3]


@pytest.mark.parametrize(("jitter", "delay"), [(-1, 54), (0, 60), (1, 66)])
def test_hello_is_spread_by_a_tenth(jitter: float, delay: float) -> None:
    assert hello_delays(60, True, jitter=jitter) == [pytest.approx(delay)]
