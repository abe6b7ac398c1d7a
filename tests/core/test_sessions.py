"""SessionAffinity: one endpoint for a session, and when that may change."""

from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import Play
from tests.core.world import BOOT, ME, endpoint, pod, server

from tailrace.core.endpoint import Endpoint
from tailrace.core.meter import Meter
from tailrace.core.model import (
    EndpointGone,
    EndpointSeen,
    EndpointState,
    ModelSpec,
    Outcome,
    Pick,
    PoolSettings,
    Refusal,
    RefusalCode,
    Request,
    ServerSeen,
    Traits,
)
from tailrace.core.pool import Pool
from tailrace.core.router import Router
from tailrace.core.sessions import Sessions

TTL = 60.0


def routed(*, hard: bool = False, capacity: int = 2, endpoints: int = 5) -> Router:
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    settings = PoolSettings("SessionAffinity", hard_sessions=hard, session_ttl=TTL)
    made.apply(ServerSeen(replace(server(), pool=settings)), BOOT)
    for number in range(endpoints):
        made.apply(EndpointSeen(pod(f"p{number}", capacity=capacity)), BOOT)
    return made


def asks(session: str, avoid: frozenset[str] = frozenset()) -> Request:
    return Request("llama", avoid=avoid, traits=Traits(session=session))


def ask(of: Router, session: str, now: float = BOOT, avoid: frozenset[str] = frozenset()) -> Pick:
    answer = of.acquire(asks(session, avoid), now)
    assert isinstance(answer, Pick), answer
    return answer


def visit(of: Router, session: str, now: float = BOOT) -> str:
    """Send one request of the session and let it end; return where it was."""
    picked = ask(of, session, now)
    of.release(picked.attempt, Outcome.COMPLETED, now)
    return picked.uid


def elsewhere(of: Router, home: str) -> str:
    """Return a session that is placed at another endpoint."""
    return next(name for name in map(str, range(100)) if visit(of, name) != home)


@given(
    st.lists(st.tuples(st.integers(1, 2), st.just(80)), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from("ppppppffurd"), st.integers(0, 11)), min_size=20, max_size=40),
    st.booleans(),
)
def test_a_session_is_where_it_was_until_that_is_over_or_cannot_be_and_may_overflow_if_it_is_soft(
    shapes: list[tuple[int, int]], steps: list[tuple[str, int]], hard: bool
) -> None:
    play = Play([], "SessionAffinity")
    play.pool = Pool(PoolSettings("SessionAffinity", hard_sessions=hard, session_ttl=8.0), Random(0))
    for number, (capacity, memory) in enumerate(shapes):
        play.all.append(endpoint(f"e{number}", capacity, memory, number))
        play.pool.add(play.all[-1])
    homes: dict[str, tuple[Endpoint, float]] = {}
    for now, (what, number) in enumerate(steps):
        if what != "p":
            play.step(what, number)
            continue
        session, able = "ab"[number % 2], play.able(1)
        home, until = homes.get(session, (None, 0.0))
        if home is not None and (now >= until or home.state is not EndpointState.READY):
            home = None
        chosen = play.pool.pick(1, request=asks(session), now=now)
        if home is not None and (home.available or hard):
            assert chosen is (home if home.available else None)
        else:
            assert (chosen in able) if able else (chosen is None)
        if chosen is not None:
            play.pool.notes.open(chosen, asks(session), now)
            homes[session] = (home or chosen, now + 8.0)
            play.take(chosen)


@pytest.mark.parametrize("hard", [False, True])
def test_a_session_stays_where_it_is(hard: bool) -> None:
    made = routed(hard=hard)
    homes = {name: visit(made, name) for name in map(str, range(20))}
    assert len(set(homes.values())) > 1
    for name, home in homes.items():
        assert visit(made, name) == home


def test_a_session_stays_although_the_ring_would_place_it_anew() -> None:
    made = routed(endpoints=1)
    homes = {name: visit(made, name) for name in map(str, range(20))}
    for number in range(1, 6):
        made.apply(EndpointSeen(pod(f"p{number}")), BOOT)
    assert {name: visit(made, name) for name in homes} == homes
    assert {visit(made, name, BOOT + TTL) for name in homes} != {"p0"}


def test_each_request_keeps_the_session_alive() -> None:
    made = routed(endpoints=1)
    for second in range(0, 200, 50):
        assert visit(made, "a", BOOT + second) == "p0"
        for number in range(1, 6):
            made.apply(EndpointSeen(pod(f"p{number}")), BOOT)


def test_a_soft_session_overflows_while_its_endpoint_is_full_and_comes_back() -> None:
    made = routed()
    home = visit(made, "a")
    first, second = ask(made, "a"), ask(made, "a")
    assert (first.uid, second.uid) == (home, home)
    assert ask(made, "a").uid != home
    made.release(first.attempt, Outcome.COMPLETED, BOOT)
    assert visit(made, "a") == home


def test_a_hard_session_is_refused_while_its_endpoint_is_full() -> None:
    made = routed(hard=True)
    home = visit(made, "a")
    held = [ask(made, "a"), ask(made, "a")]
    answer = made.acquire(asks("a"), BOOT)
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.SATURATED
    assert "session" in answer.message
    assert answer.retry_after is not None
    assert visit(made, elsewhere(made, home)) != home
    made.release(held[0].attempt, Outcome.COMPLETED, BOOT)
    assert visit(made, "a") == home


def test_when_all_are_full_a_hard_session_is_told_so() -> None:
    made = routed(hard=True, endpoints=1, capacity=1)
    ask(made, "a")
    answer = made.acquire(asks("a"), BOOT)
    assert isinstance(answer, Refusal)
    assert "every endpoint" in answer.message


@pytest.mark.parametrize("hard", [False, True])
def test_a_session_moves_when_its_endpoint_drains_or_is_unready(hard: bool) -> None:
    made = routed(hard=hard)
    home = visit(made, "a")
    made.apply(EndpointSeen(pod(home, ready=False, version=2)), BOOT)
    moved = visit(made, "a")
    assert moved != home
    made.apply(EndpointSeen(pod(home, version=3)), BOOT)
    assert visit(made, "a") == moved
    made.drain(moved, 1, BOOT)
    assert visit(made, "a") != moved


@pytest.mark.parametrize("hard", [False, True])
def test_a_session_moves_when_its_endpoint_could_not_be_reached(hard: bool) -> None:
    made = routed(hard=hard)
    home = visit(made, "a")
    retried = ask(made, "a", avoid=frozenset({home})).uid
    assert retried != home
    assert visit(made, "a") == retried


def test_sessions_go_with_their_endpoint_and_with_its_container() -> None:
    made = routed(endpoints=1)
    for name in "abc":
        visit(made, name)
    notes = next(iter(made._registry._pools.values())).notes
    assert isinstance(notes, Sessions)
    assert len(notes) == 3
    made.apply(EndpointSeen(pod("p0", version=2, incarnation="new")), BOOT)
    assert len(notes) == 0
    visit(made, "a")
    made.apply(EndpointGone("p0"), BOOT)
    assert len(notes) == 0


def test_sessions_outlive_a_change_of_another_server_but_not_of_their_settings() -> None:
    made = routed()
    home = visit(made, "a")
    for number in range(5, 30):
        made.apply(EndpointSeen(pod(f"p{number}")), BOOT)
    made.apply(ServerSeen(server("other", ModelSpec("m"), namespace="elsewhere")), BOOT)
    assert visit(made, "a") == home
    made.apply(ServerSeen(replace(server(), pool=PoolSettings("SessionAffinity", session_ttl=1.0))), BOOT)
    notes = [pool.notes for pool in made._registry._pools.values() if isinstance(pool.notes, Sessions)]
    assert [len(each) for each in notes] == [0]


def test_requests_without_a_session_go_to_the_least_loaded() -> None:
    made = routed(endpoints=2)
    first = made.acquire(asks(""), BOOT)
    second = made.acquire(Request("llama"), BOOT)
    assert isinstance(first, Pick)
    assert isinstance(second, Pick)
    assert {first.uid, second.uid} == {"p0", "p1"}


def test_old_sessions_make_room() -> None:
    notes = Sessions(TTL, most=2)
    one = endpoint("one")
    one.meter = Meter()
    for number, name in enumerate("abc"):
        notes.open(one, asks(name), float(number))
    assert [notes.endpoint(name, 3.0) for name in "abc"] == [None, one, one]
    notes.open(one, asks("d"), 2.0 + TTL)
    assert len(notes) == 1
    assert notes.endpoint("d", 2.0 + TTL) is one
