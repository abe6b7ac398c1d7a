"""The index of prefixes: who has what, for how long, and within which bounds."""

from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import given
from tests.core.world import endpoint

from tailrace.core.endpoint import Endpoint
from tailrace.core.prefix import MOST_HOLDERS, PrefixIndex

CHAINS = st.lists(st.integers(0, 3), max_size=6).map(
    lambda path: tuple(hash(tuple(path[: n + 1])) for n in range(len(path)))
)
"""Paths in a tree: two that begin alike share those blocks."""


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many blocks two chains share from their beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.lists(st.tuples(st.integers(0, 2), CHAINS), max_size=20), CHAINS)
def test_the_longest_match_is_found_for_each_endpoint_and_in_all(
    notes: list[tuple[int, tuple[int, ...]]], chain: tuple[int, ...]
) -> None:
    all_of = [endpoint(f"e{n}", added=n) for n in range(3)]
    index = PrefixIndex()
    for number, noted in notes:
        index.note(all_of[number], noted)
    best = {e: max((shared(noted, chain) for n, noted in notes if all_of[n] is e), default=0) for e in all_of}
    assert {e: index.match(e, chain) for e in all_of} == best
    deepest = max(best.values())
    assert set(index.holders(chain)) == {e for e in all_of if best[e] == deepest and deepest}


def test_only_the_latest_holders_of_a_block_are_told() -> None:
    index = PrefixIndex()
    all_of = [endpoint(f"e{n}", added=n) for n in range(MOST_HOLDERS + 2)]
    for each in all_of:
        index.note(each, (1,))
    assert index.holders((1,)) == tuple(all_of[2:])
    assert index.match(all_of[0], (1,)) == 1
    for each in all_of:
        index.forget(each)
    assert index.holders((1,)) == ()
    assert len(index) == 0


def test_an_endpoint_that_is_forgotten_has_nothing() -> None:
    index = PrefixIndex()
    a, b = endpoint("a"), endpoint("b", added=1)
    index.note(a, (1, 2))
    index.note(b, (1,))
    index.forget(a)
    index.forget(endpoint("never", added=2))
    assert (index.match(a, (1, 2)), index.match(b, (1, 2))) == (0, 1)
    assert index.holders((1, 2)) == (b,)


def fill(index: PrefixIndex, by: Endpoint, chains: int, length: int = 10) -> None:
    for number in range(chains):
        index.note(by, tuple(number * 1000 + block for block in range(length)))


def test_the_index_is_bounded_and_forgets_the_oldest_tails_first() -> None:
    index = PrefixIndex(most=80)
    a = endpoint("a")
    fill(index, a, 8)
    assert len(index) == 80
    index.note(a, tuple(range(10)))  # the first chain is the latest now
    index.note(a, (9001,))
    assert 60 <= len(index) <= 80
    assert index.match(a, tuple(range(10))) == 10
    assert index.match(a, tuple(1000 + block for block in range(10))) == 0
    part = index.match(a, tuple(2000 + block for block in range(10)))
    assert 0 < part < 10, "its tail is gone and its beginning is not"
    fill(index, a, 500)
    assert len(index) <= 80
    assert len(index._holders) == len(index)


def test_a_chain_whose_end_alone_is_known_is_noted_from_its_beginning() -> None:
    index = PrefixIndex()
    a = endpoint("a")
    index.note(a, (1,))
    index.note(a, (0, 1))
    assert index.match(a, (0, 1)) == 2
    assert index.holders((0, 1)) == (a,)
    assert len(index) == 2


def test_an_endpoint_that_had_forgotten_gets_less_room_and_one_that_remembers_more_again() -> None:
    index = PrefixIndex(most=2000)
    a, b = endpoint("a"), endpoint("b", added=1)
    index.note(b, (1,))
    fill(index, a, 60)
    assert len(index._blocks[a]) == 600
    for _ in range(10):
        index.confirm(a, believed=10, real=4)
        fill(index, a, 1)
    less = len(index._blocks[a])
    assert 150 < less < 300
    assert index.match(a, tuple(range(10))) == 10, "what was used last is still noted"
    for _ in range(1000):
        index.confirm(a, believed=10, real=10)
        index.confirm(a, believed=0, real=1)
    fill(index, a, 500)
    assert less < len(index._blocks[a]) <= 1000, "and never more than its part"
    for _ in range(100):
        index.confirm(a, believed=10, real=0)
    fill(index, a, 500)
    assert 56 <= len(index._blocks[a]) <= 64, "a little is always noted"
    index.forget(a)
    index.confirm(a, believed=1, real=0)
    assert len(index) == 1
    assert a not in index._rooms, "who is forgotten stays so, whatever its last requests tell"


def test_endpoints_share_the_room_equally() -> None:
    index = PrefixIndex(most=200)
    all_of = [endpoint(f"e{n}", added=n) for n in range(4)]
    for each in all_of:
        fill(index, each, 100)
    for each in all_of:
        fill(index, each, 100)
    assert len(index) <= 200
    assert all(len(index._blocks[each]) > 30 for each in all_of)


def test_what_was_dropped_from_the_told_holders_may_still_be_dropped_by_its_endpoint() -> None:
    index = PrefixIndex(most=6 * MOST_HOLDERS)
    all_of = [endpoint(f"e{n}", added=n) for n in range(MOST_HOLDERS + 1)]
    for each in all_of:
        index.note(each, (1,))
    for each in all_of[1:]:
        index.forget(each)
    assert index.holders((1,)) == ()
    fill(index, all_of[0], 10)
    assert index.match(all_of[0], (1,)) == 0
