import time

import pytest

from tailrace.clock import Clock


def test_it_starts_at_wall_time() -> None:
    before = time.time()
    assert before - 0.01 <= Clock()() <= time.time() + 0.01


@pytest.mark.parametrize("step", [-86400.0, 3600.0])
def test_a_step_of_the_wall_clock_does_not_move_it(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    clock, wall = Clock(), time.time
    before = clock()
    monkeypatch.setattr(time, "time", lambda: wall() + step)
    assert before <= clock() < before + 60


def test_it_goes_with_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: 7.5)
    assert clock() == 1002.5
