import pytest

from tailrace.sim.clock import RateClock


class Real:
    """A clock that a test turns by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_clock_starts_at_zero_and_runs_at_its_rate() -> None:
    real = Real()
    clock = RateClock(real, 10)
    real.now += 2
    assert clock.now() == pytest.approx(20)


def test_a_change_of_rate_never_makes_the_time_jump() -> None:
    real = Real()
    clock = RateClock(real)
    real.now += 3
    clock.set_rate(0)
    real.now += 50
    assert clock.now() == pytest.approx(3)
    clock.set_rate(0.5)
    real.now += 4
    assert clock.now() == pytest.approx(5)


def test_waiting_times_are_real_seconds() -> None:
    clock = RateClock(Real(), 4)
    assert clock.real_seconds_until(8) == pytest.approx(2)
    assert clock.real_seconds_until(-1) == 0


def test_nothing_comes_while_the_clock_stands_still_or_when_nothing_is_due() -> None:
    clock = RateClock(Real(), 0)
    assert clock.real_seconds_until(1) is None
    assert RateClock(Real()).real_seconds_until(float("inf")) is None
