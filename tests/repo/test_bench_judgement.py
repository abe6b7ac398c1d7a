import pytest
from bench.growth import Limit, growth, longest_life
from bench.marks import Mark

LIMIT = Limit(amount=10, share=0.05)


def line(first: float, per_second: float) -> list[tuple[float, float]]:
    return [(float(at), first + per_second * at) for at in range(0, 101, 20)]


def test_a_value_that_rises_more_than_is_allowed_grows() -> None:
    seen = growth(line(100, 0.2), LIMIT)
    assert seen is not None
    assert (seen.grows, round(seen.rise), round(seen.per_hour)) == (True, 20, 720)


@pytest.mark.parametrize("per_second", [-1.0, 0.0, 0.09])
def test_a_value_that_falls_or_hardly_rises_does_not_grow(per_second: float) -> None:
    seen = growth(line(100, per_second), LIMIT)
    assert seen is not None
    assert not seen.grows


def test_a_large_value_may_rise_by_its_share() -> None:
    seen = growth(line(10_000, 4), LIMIT)
    assert seen is not None
    assert not seen.grows


def test_a_few_values_say_nothing() -> None:
    assert growth(line(100, 10)[:3], LIMIT) is None


def test_only_one_life_of_a_process_is_judged() -> None:
    assert longest_life([(1, 0, 50), (2, 1, 10), (2, 2, 11)]) == [(1, 10), (2, 11)]


def test_a_mark_says_whether_it_is_met() -> None:
    assert str(Mark("x", 4.0, 4.0, "us")).endswith(" met")
    assert str(Mark("x", 4.1, 4.0, "us")).endswith("NOT MET")
    assert str(Mark("x", 4.1, None, "us")).endswith("4.1 us")
