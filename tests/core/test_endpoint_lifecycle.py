"""Every event in every state, and what an endpoint tells of itself."""

import itertools

import pytest
from tests.core.world import endpoint, pool

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import EndpointState as State

TABLE = """
           seen_ready  seen_unready  drain     undrain   drain_over  vanished  returned
STARTING   READY       -             DRAINING  -         -           GONE      -
READY      -           STARTING      DRAINING  -         -           GONE      -
DRAINING   -           -             -         STARTING  DRAINED     GONE      -
DRAINED    -           -             -         STARTING  -           GONE      -
GONE       -           -             -         -         -           -         STARTING
"""

PATHS: dict[State, list[Event]] = {
    State.STARTING: [],
    State.READY: [Event.SEEN_READY],
    State.DRAINING: [Event.DRAIN],
    State.DRAINED: [Event.DRAIN, Event.DRAIN_OVER],
    State.GONE: [Event.VANISHED],
}


def _rows() -> list[tuple[State, Event, State | None]]:
    head, *lines = TABLE.strip().splitlines()
    events = [Event[name.upper()] for name in head.split()]
    return [
        (State[name], event, None if cell == "-" else State[cell])
        for name, *cells in map(str.split, lines)
        for event, cell in zip(events, cells, strict=True)
    ]


def _in(state: State) -> Endpoint:
    made = endpoint("a", ready=False)
    for event in PATHS[state]:
        made.on(event)
    assert made.state is state
    return made


@pytest.mark.parametrize(("before", "event", "after"), _rows())
def test_an_event_leads_where_the_table_says(before: State, event: Event, after: State | None) -> None:
    made = _in(before)
    assert made.on(event) is (after is not None)
    assert made.state is (after or before)


def test_the_table_speaks_of_every_state_and_event() -> None:
    assert {(before, event) for before, event, _ in _rows()} == set(itertools.product(State, Event))


@pytest.mark.parametrize("state", State)
def test_only_a_ready_endpoint_is_picked(state: State) -> None:
    made = _in(state)
    assert made.available is (state is State.READY)
    assert (pool(made).pick(1) is made) is (state is State.READY)


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_leaving_ready_takes_it_out_of_its_pool_at_once(state: State) -> None:
    made = endpoint("a")
    of = pool(made)
    events = [Event.SEEN_UNREADY] if state is State.STARTING else PATHS[state]
    for event in events:
        made.on(event)
    assert made.state is state
    assert of.pick(1) is None
    assert list(of.qualified(1)) == []


@pytest.mark.parametrize("state", State)
def test_whether_it_was_ever_ready_is_remembered(state: State) -> None:
    made = _in(state)
    assert made.was_ready is (state is State.READY)
    ready = endpoint("b")
    ready.on(Event.SEEN_UNREADY)
    assert ready.was_ready


def test_a_freed_slot_of_a_draining_endpoint_is_not_offered() -> None:
    made = endpoint("a", capacity=2)
    of = pool(made)
    made.take()
    made.on(Event.DRAIN)
    made.free()
    assert of.pick(1) is None


def test_an_endpoint_over_its_limit_after_a_shrink_is_offered_again_only_below_it() -> None:
    made = endpoint("a", capacity=4)
    of = pool(made)
    for _ in range(4):
        made.take()
    made.resize(4, 80, members=2)
    made.refresh()
    picks = []
    for _ in range(3):
        made.free()
        picks.append(of.pick(1))
    assert picks == [None, None, made]


@pytest.mark.parametrize(
    ("capacity", "members", "limit"), [(4, 1, 4), (4, 2, 2), (5, 2, 3), (1, 3, 1), (1000, 3, 334), (7, 7, 1)]
)
def test_members_share_the_capacity_rounded_up(capacity: int, members: int, limit: int) -> None:
    made = endpoint("a")
    made.resize(capacity, 80, members)
    assert made.limit == limit


def test_rank_is_memory_then_capacity_then_the_order_of_adding() -> None:
    shapes = [(4, 80), (8, 40), (4, 40), (4, 40), (1, 0)]
    made = [endpoint(str(number), capacity, memory, number) for number, (capacity, memory) in enumerate(shapes)]
    ranks = [each.rank for each in made]
    assert ranks == sorted(set(ranks))


def test_blindness_lasts_as_long_as_a_lease_may_live() -> None:
    made = endpoint("a")
    assert not made.blind(0.0)
    made.blind_since = 100.0
    assert (made.blind(699.9), made.blind(700.0)) == (True, False)
    assert made.unseen(100.0) == 1


def test_what_is_unknown_stays_so_until_the_engine_is_trusted() -> None:
    made = endpoint("a")
    made.unknown.update({"x", "y"})
    made.blind_since = 100.0
    assert made.unseen(100.0) == 3
    assert made.unseen(1e9) == 2
    made.trust()
    assert made.unseen(100.0) == 0
