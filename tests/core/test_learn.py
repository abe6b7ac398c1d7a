"""The small learners, each against its definition."""

from math import ceil

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tailrace.core.learn import WINDOW, Mean, Quantile, Ratio, Speed


@given(st.lists(st.floats(0, 1e6), max_size=300), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_exact_over_the_last_values(values: list[float], share: float) -> None:
    learner = Quantile(share)
    assert learner.value is None
    for value in values:
        learner.see(value)
    last = sorted(values[-WINDOW:])
    assert learner.value == (last[max(1, ceil(share * len(last))) - 1] if last else None)


def test_a_mean_begins_with_the_first_value_and_follows() -> None:
    mean = Mean(0.1)
    assert mean.value is None
    mean.see(10.0)
    mean.see(20.0)
    assert mean.value == 11.0


def test_a_speed_is_a_guess_until_more_was_seen_of_it() -> None:
    speed = Speed()
    assert speed.guessed
    speed.see(100.0, 0.2, 1.0)
    assert speed.guessed
    speed.see(100.0, 0.2, 2.0)
    assert not speed.guessed
    assert speed.usual(1.0) > 250


def test_a_ratio_weighs_large_samples_more_and_forgets() -> None:
    ratio = Ratio(0.5, value=3.0, weight=2.0)
    assert ratio.value == 3.0
    ratio.see(100.0, 100.0)
    assert ratio.value == pytest.approx(103.0 / 101.0)
    for _ in range(60):
        ratio.see(5.0, 1.0)
    assert ratio.value == pytest.approx(5.0)
