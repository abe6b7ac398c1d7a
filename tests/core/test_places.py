"""Small numbers in the order of large ones, and what a heap makes of them."""

from itertools import pairwise
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.world import endpoint

from tailrace.core.order import BY_LOAD_RATIO
from tailrace.core.sources.least import LeastSource
from tailrace.core.sources.places import PLACE_BITS, Places

MANY = 400
TIES = st.integers(-(1 << 160), 1 << 160)
COMING = {
    "each behind the last": list(range(MANY)),
    "each before the first": list(range(MANY, 0, -1)),
    "anywhere": Random(1).sample(range(MANY), MANY),
    "from both ends to the middle": [n if n % 2 else 2 * MANY - n for n in range(MANY)],
}


def assert_in_order(places: dict[int, int]) -> None:
    in_order = [places[tie] for tie in sorted(places)]
    assert all(before < behind for before, behind in pairwise(in_order))
    assert all(0 <= place < 1 << PLACE_BITS for place in in_order)


@given(steps=st.lists(st.tuples(st.booleans(), TIES), max_size=60))
def test_places_are_in_the_order_of_ties(steps: list[tuple[bool, int]]) -> None:
    row, taken = Places(), dict[int, int]()
    for leaves, tie in steps:
        if leaves and taken:
            gone = min(taken, key=lambda each: abs(each - tie))
            row.leave(gone)
            del taken[gone]
        elif tie not in taken:
            place = row.enter(tie)
            taken = row.spread([tie]) if place is None else taken | {tie: place}
        assert_in_order(taken)
    assert set(row.spread([])) == set(taken)


@pytest.mark.parametrize("ties", COMING.values(), ids=COMING)
def test_there_is_room_for_everyone_wherever_they_belong(ties: list[int]) -> None:
    row, taken, spreads = Places(), dict[int, int](), 0
    for tie in ties:
        place = row.enter(tie)
        spreads += place is None
        taken = row.spread([tie]) if place is None else taken | {tie: place}
    assert_in_order(taken)
    assert len(taken) == MANY
    assert spreads < MANY / 5


@pytest.mark.parametrize("ties", COMING.values(), ids=COMING)
@pytest.mark.parametrize("at_once", [1, 50])
def test_endpoints_of_equal_load_come_by_rank_in_whatever_order_they_came(ties: list[int], at_once: int) -> None:
    source = LeastSource(BY_LOAD_RATIO)
    all_of = [endpoint(f"e{tie}", 4, memory=1 + tie % 7, added=tie) for tie in ties]
    for number, each in enumerate(all_of):
        source.update(each)
        if number % at_once == 0:
            assert source.best() is min(all_of[: number + 1], key=source.order)
    all_of[5].in_flight = 3
    source.remove(all_of[7])
    source.forget(all_of[9])
    left = [each for each in all_of if each not in {all_of[7], all_of[9]}]
    assert list(source.offer()) == list(source.peek()) == sorted(left, key=source.order)


@pytest.mark.parametrize("load", [1 << 20, 1 << 200])
def test_keys_that_do_not_fit_in_a_word_are_as_exact(load: int) -> None:
    source = LeastSource(BY_LOAD_RATIO)
    all_of = [endpoint(f"e{number}", 1, added=number) for number in range(3)]
    for each, more in zip(all_of, (2, 0, 1), strict=True):
        each.in_flight = load + more
        source.update(each)
    assert [each.uid for each in source.offer()] == ["e1", "e2", "e0"]
    assert source.best() is all_of[1]
