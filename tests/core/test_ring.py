"""PrefixCache: the ring's order, the bound on loads, and what happens when endpoints come and go."""

from bisect import bisect_left
from fractions import Fraction
from math import ceil

import hypothesis.strategies as st
from hypothesis import given
from tests.core.world import endpoint, pool

from tailrace.core.endpoint import ADDED_BITS, Endpoint, Event
from tailrace.core.model import Request, Traits
from tailrace.core.pool import Pool
from tailrace.core.sources.ring import MOST_STEPS, POINTS, RingSource, hash64

PREFIXES = st.integers(0, 2**64 - 1)


def asks(prefix: int | None) -> Request:
    return Request("m", traits=Traits(prefix=prefix))


def pick(of: Pool, prefix: int | None) -> Endpoint:
    chosen = of.pick(1, request=asks(prefix))
    assert chosen is not None
    return chosen


def ring_order(all_of: list[Endpoint], prefix: int) -> list[Endpoint]:
    """Return the endpoints in the order of the ring, from the paper's definition."""
    points = sorted((hash64(f"{n} {e.uid}".encode()), e.added, e) for e in all_of for n in range(POINTS))
    at = bisect_left(points, (prefix,))
    return list(dict.fromkeys(e for _, _, e in points[at:] + points[:at]))


def within_bound(each: Endpoint, all_of: list[Endpoint]) -> bool:
    """Whether one more would keep the endpoint within 125 % of its part of all that is in flight."""
    mean = Fraction(sum(e.in_flight for e in all_of) + 1, sum(e.capacity for e in all_of))
    return each.in_flight + 1 <= ceil(Fraction(5, 4) * mean * each.capacity)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.lists(st.tuples(PREFIXES, st.booleans()), max_size=30))
def test_a_prefix_goes_to_the_first_endpoint_of_the_ring_that_is_within_the_bound(
    capacities: list[int], steps: list[tuple[int, bool]]
) -> None:
    all_of = [endpoint(f"e{n}", capacity, 80, n) for n, capacity in enumerate(capacities)]
    made = pool(*all_of, strategy="PrefixCache")
    active: list[Endpoint] = []
    for prefix, ends in steps:
        if ends and active:
            active.pop(prefix % len(active)).free()
        able = [e for e in ring_order(all_of, prefix) if e.available]
        chosen = made.pick(1, request=asks(prefix))
        assert chosen is next((e for e in able if within_bound(e, all_of)), None if not able else chosen)
        assert (chosen is None) == (not able)
        if chosen is not None:
            chosen.take()
            active.append(chosen)


@given(st.lists(PREFIXES, min_size=1, max_size=20), st.integers(0, 4))
def test_only_the_keys_of_an_endpoint_that_left_move(prefixes: list[int], leaver: int) -> None:
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(5)]
    made = pool(*all_of, strategy="PrefixCache")
    before = [pick(made, prefix) for prefix in prefixes]
    made.remove(all_of[leaver])
    after = [pick(made, prefix) for prefix in prefixes]
    assert all(now is then for then, now in zip(before, after, strict=True) if then is not all_of[leaver])
    assert all_of[leaver] not in after


def test_an_endpoint_that_is_not_ready_lends_its_keys_and_gets_them_back() -> None:
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(5)]
    made = pool(*all_of, strategy="PrefixCache")
    home = pick(made, 7)
    home.on(Event.SEEN_UNREADY)
    assert pick(made, 7) is not home
    home.on(Event.SEEN_READY)
    assert pick(made, 7) is home
    home.on(Event.DRAIN)
    assert pick(made, 7) is not home


def test_a_hot_prefix_cannot_bury_one_endpoint() -> None:
    all_of = [endpoint(f"e{n}", 100, 80, n) for n in range(8)]
    made = pool(*all_of, strategy="PrefixCache")
    for _ in range(400):
        pick(made, 7).take()
    loads = [each.in_flight for each in all_of]
    assert max(loads) <= ceil(1.25 * sum(loads) / len(loads))


def test_every_replica_has_the_same_ring() -> None:
    first = pool(*(endpoint(f"e{n}", 1000, 80, n) for n in range(5)), strategy="PrefixCache")
    other = pool(*(endpoint(f"e{4 - n}", 1000, 80, n) for n in range(5)), strategy="PrefixCache")
    prefixes = [hash64(b"%d" % n) for n in range(50)]
    assert [pick(first, p).uid for p in prefixes] == [pick(other, p).uid for p in prefixes]


def test_keys_are_spread() -> None:
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(5)]
    made = pool(*all_of, strategy="PrefixCache")
    homes = [pick(made, hash64(b"%d" % n)) for n in range(2000)]
    assert all(200 <= homes.count(each) <= 700 for each in all_of)


def test_a_request_without_a_prefix_goes_to_the_least_loaded() -> None:
    busy, idle = endpoint("busy", 4, 80, 0), endpoint("idle", 4, 80, 1)
    made = pool(busy, idle, strategy="PrefixCache")
    busy.take()
    assert pick(made, None) is idle
    assert made.pick(1) is idle


def test_where_the_ring_gives_up_the_least_loaded_is_picked() -> None:
    """The first ones after the key are all too full; the walk ends, and one beyond it is found."""
    all_of = [endpoint(f"e{n}", 1000, 80, n) for n in range(2 * MOST_STEPS)]
    made = pool(*all_of, strategy="PrefixCache")
    order = ring_order(all_of, 7)
    for each in order[:MOST_STEPS]:
        each.in_flight = 900
        each.refresh()
    chosen = pick(made, 7)
    assert chosen in order[MOST_STEPS:]


def test_a_full_endpoint_counts_in_the_mean_and_one_that_left_does_not() -> None:
    source = RingSource(lambda _: 0, 125)
    full, other = endpoint("full", 4, 80, 0), endpoint("other", 4, 80, 1)
    for each in (full, other):
        source.update(each)
    full.in_flight = 4
    source.remove(full)
    assert list(source.offer()) == [other]
    assert (source._loads._in_flight, source._loads._capacity) == (4, 8)
    full.on(Event.DRAIN)
    source.remove(full)
    assert (source._loads._in_flight, source._loads._capacity) == (0, 4)
    source.forget(full)
    source.remove(full)
    assert len(source._points) == POINTS
    assert source._points[0] & ((1 << ADDED_BITS) - 1) == 1


def test_a_pick_is_counted_before_its_slot_is_taken() -> None:
    source = RingSource(lambda _: 0, 125)
    one = endpoint("one", 4, 80, 0)
    source.took(one)
    assert source._loads._in_flight == 0
    source.update(one)
    source.took(one)
    assert source._loads._in_flight == 1
    assert source.best() is None
    assert source.order(one) == one.rank
