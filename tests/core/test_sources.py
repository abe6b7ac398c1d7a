"""What every source of candidates keeps, whatever its rule."""

from collections.abc import Callable
from heapq import heapify
from itertools import islice
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.world import endpoint

from tailrace.core.endpoint import Endpoint
from tailrace.core.order import BY_LOAD_RATIO
from tailrace.core.sessions import Sessions
from tailrace.core.sources.base import Source
from tailrace.core.sources.classes import ClassSource
from tailrace.core.sources.heaps import in_order
from tailrace.core.sources.least import LeastSource
from tailrace.core.sources.places import PLACE_BITS
from tailrace.core.sources.rotation import RotationSource
from tailrace.core.sources.sample import SampleSource
from tailrace.core.sources.session import SessionSource
from tailrace.core.sources.weighted import WeightedRotationSource

Make = Callable[[], Source]
MAKERS: list[Make] = [
    lambda: LeastSource(BY_LOAD_RATIO),
    RotationSource,
    lambda: WeightedRotationSource(lambda each: each.added + 1),
    lambda: SampleSource(Random(1)),
    lambda: ClassSource(lambda each: each.in_flight % 2, BY_LOAD_RATIO),
    lambda: SessionSource(Sessions(1.0), LeastSource(BY_LOAD_RATIO), percent=125, hard=True),
]
IDS = ["least", "rotation", "weighted", "sample", "classes", "session"]
every_source = pytest.mark.parametrize("make", MAKERS, ids=IDS)
MANY = 40
"""Several times as many as are kept ahead of a heap."""
WHAT = ["take", "free", "remove", "update", "forget", "offer", "best", "pick"]
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 5)))


@every_source
@given(steps=STEPS)
def test_a_source_offers_exactly_those_that_are_in_once_each(make: Make, steps: list[tuple[str, int]]) -> None:
    source = make()
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(6)]
    inside: set[Endpoint] = set()
    for what, number in steps:
        one = all_of[number]
        if what == "take":
            one.in_flight += 1
        elif what == "free" and one.in_flight:
            one.in_flight -= 1
            if one in inside:
                source.update(one)
        elif what == "update":
            source.update(one)
            inside.add(one)
        elif what in ("remove", "forget"):
            getattr(source, what)(one)
            inside.discard(one)
        elif what == "offer":
            offer = source.offer()
            for _, _found in zip(range(number), offer, strict=False):
                pass
            offer.close()  # type: ignore[attr-defined]
        elif (best := source.best()) is not None and what == "pick":
            source.took(best)
        offered = list(source.offer())
        assert len(offered) == len(inside)
        assert set(offered) == inside
        assert (source.best() in inside) if inside else (source.best() is None)


@pytest.mark.parametrize("make", MAKERS[:3], ids=IDS[:3])
def test_the_first_offered_is_the_best_and_the_least_in_order(make: Make) -> None:
    source = make()
    all_of = [endpoint(f"e{n}", 4, 80, n) for n in range(4)]
    for each, load in zip(all_of, (2, 0, 1, 0), strict=True):
        each.in_flight = load
        source.update(each)
    source.took(all_of[1])
    offered = list(source.offer())
    assert offered == sorted(all_of, key=source.order)
    assert source.best() is offered[0]


def test_an_entry_that_was_mended_twice_to_the_same_place_is_offered_once() -> None:
    source = LeastSource(BY_LOAD_RATIO)
    a, b = endpoint("a", 4, 80, 0), endpoint("b", 4, 80, 1)
    b.in_flight = 3
    a.in_flight = 1
    for each in (a, b):
        source.update(each)
    assert source.best() is a
    a.in_flight = 0
    source.update(a)
    assert source.best() is a
    a.in_flight = 1
    assert list(source.offer()) == [a, b]


def test_the_heap_stays_bounded_though_old_entries_never_surface() -> None:
    source = LeastSource(BY_LOAD_RATIO)
    steady, busy = endpoint("steady", 4, 80, 0), endpoint("busy", 4, 80, 1)
    steady.in_flight = 2
    for _ in range(1000):
        for busy.in_flight in (3, 1):
            source.update(steady)
            source.update(busy)
            source.best()
    assert len(source._heap) < 80


def test_a_gap_that_the_next_request_fills_leaves_the_heap_as_it_was() -> None:
    source, all_of = LeastSource(BY_LOAD_RATIO), [endpoint(f"e{n}", 8, 80, n) for n in range(50)]
    for each in all_of:
        each.in_flight = 4
        source.update(each)
    source.best()
    before = list(source._heap)
    for each in all_of[::-1]:
        each.in_flight -= 1
        source.update(each)
        assert source.best() is each
        each.in_flight += 1
    assert source.best() is all_of[0]
    assert source._heap == before


@pytest.mark.parametrize("at_once", [1, 3, MANY])
@pytest.mark.parametrize("kinds", [1, 4])
def test_the_order_is_exact_whatever_grows_falls_leaves_and_comes_back(at_once: int, kinds: int) -> None:
    """With more that fall between two looks than are kept ahead of the heap, and fewer."""
    rng, source = Random(at_once), LeastSource(BY_LOAD_RATIO)
    all_of = [endpoint(f"e{n}", 8 + n % kinds, 80 + n % 2, n) for n in range(MANY)]
    inside: set[Endpoint] = set()
    for look in range(600):
        for one in rng.choices(all_of, k=rng.randrange(at_once + 1)):
            change(source, one, inside, rng)
        expected = sorted(inside, key=source.order)
        assert source.best() is (expected[0] if expected else None)
        if look % 4 == 0:
            assert list(source.offer()) == list(source.peek()) == expected
        if expected and rng.random() < 0.7:
            expected[0].in_flight += 1


def change(source: LeastSource, one: Endpoint, inside: set[Endpoint], rng: Random) -> None:
    """Let something happen to an endpoint, and have the source hear of it as far as it is told."""
    what = rng.random()
    if what < 0.6:
        one.in_flight -= rng.randrange(min(3, one.in_flight + 1))
    elif what < 0.8:
        one.in_flight += 1
    elif what < 0.9 and one in inside:
        (source.forget if what < 0.82 else source.remove)(one)
        inside.discard(one)
        return
    source.update(one)
    inside.add(one)


def test_an_endpoint_that_left_for_good_comes_back_as_a_new_one() -> None:
    source = RotationSource()
    a, b = endpoint("a", added=0), endpoint("b", added=1)
    for each in (b, a):
        source.update(each)
        source.took(each)
    assert source.best() is b
    source.forget(a)
    source.update(a)
    assert source.best() is a


def test_chance_gives_every_order() -> None:
    source = SampleSource(Random(1))
    all_of = [endpoint(f"e{n}", 4, 80, n) for n in range(3)]
    for each in all_of:
        source.update(each)
    orders = {"".join(each.uid for each in source.offer()) for _ in range(200)}
    assert len(orders) == 6
    assert len({source.order(each) for each in all_of}) == 3


def test_the_best_of_every_class_come_first() -> None:
    source = ClassSource(lambda each: each.capacity, BY_LOAD_RATIO)
    all_of = [endpoint(f"e{n}", capacity, 80, n) for n, capacity in enumerate((2, 2, 4, 4, 4))]
    for each in all_of:
        source.update(each)
    all_of[0].in_flight = 1
    source.took(all_of[0])
    assert [each.uid for each in source.offer()] == ["e1", "e2", "e0", "e3", "e4"]
    assert source.best() is all_of[1]
    all_of[1].resize(4, 80)
    source.update(all_of[1])
    source.remove(all_of[0])
    assert [each.uid for each in source.offer()] == ["e1", "e2", "e3", "e4"]
    assert len(source._classes) == 1


def test_a_look_at_a_single_class_mends_what_it_passes_or_the_next_would_pass_it_again() -> None:
    source = ClassSource(lambda _: 0, BY_LOAD_RATIO)
    a, b = endpoint("a", 4, 80, 0), endpoint("b", 4, 80, 1)
    for each in (a, b):
        source.update(each)
    assert next(source.offer()) is a
    a.in_flight = 2
    assert next(source.offer()) is b
    heap, before = source._classes[0]._heap, endpoint("before", 4, 80, 0)
    assert heap[0] == min(heap)
    assert len([entry for entry in heap if entry >> PLACE_BITS == BY_LOAD_RATIO.key(before)]) == 1


@every_source
def test_who_left_and_came_back_is_offered_once(make: Make) -> None:
    source, one = make(), endpoint("e")
    for _ in range(3):
        source.update(one)
        source.best()
        source.remove(one)
    source.update(one)
    assert list(source.offer()) == list(source.peek()) == [one]


@given(entries=st.lists(st.integers(0, 50)), read=st.integers(0, 60))
def test_a_heap_is_read_in_order_as_far_as_it_is_read(entries: list[int], read: int) -> None:
    heapify(entries)
    before = list(entries)
    assert list(islice(in_order(entries), read)) == sorted(entries)[:read]
    assert entries == before
