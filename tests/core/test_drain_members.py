"""Several replicas: durable marks, lists of members that answer, words that hold for one mark."""

from __future__ import annotations

from random import Random

from tests.core.world import BOOT, ME, MODEL, OTHER, SETTLE, THIRD, pick, pod, released, see, server, state

from tailrace.core.model import EndpointSpec, EndpointState, Outcome, Pick, Request, ServerSeen, Word
from tailrace.core.router import Router

T0 = BOOT + 10
BOTH = frozenset({ME, OTHER})
DRAINING, READY = EndpointState.DRAINING, EndpointState.READY


def member(*pods: EndpointSpec, members: frozenset[str] = BOTH) -> Router:
    """Return a router among others that has read this list of members and seen these pods."""
    made = Router(ME, booted_at=BOOT, rng=Random(0), alone=False)
    made.apply(ServerSeen(server()), BOOT)
    see(made, BOOT, *pods)
    made.set_members(members, BOOT, answers=made.members_wanted)
    return made


def deletion(in_flight: int = 0) -> dict[str, Word]:
    return {"a": Word(in_flight, frozenset({"deletion"}))}


def safe(of: Router, now: float) -> bool:
    of.releasable(now)
    told = of.drain_status("a")
    assert told is not None
    return told.safe_to_delete


def test_a_drain_waits_for_a_list_of_members_that_was_read_after_it_began() -> None:
    of = member(pod("a"))
    before = of.members_wanted
    see(of, T0, pod("a", version=2, deleted_at=T0, timeout=999))
    of.hear(OTHER, deletion(), T0)
    assert of.members_wanted > before
    of.set_members(BOTH, T0 + 1, answers=before)  # read too early: it may lack a replica that has registered since
    assert released(of, T0 + 30) == {}
    of.set_members(BOTH, T0 + 30, answers=of.members_wanted)
    assert set(released(of, T0 + 30)) == {"a"}


def test_one_list_answers_every_drain_that_began_before_it_was_read() -> None:
    of = member(pod("a"), pod("b"), members=frozenset({ME}))
    for uid in "ab":
        see(of, T0, pod(uid, version=2, deleted_at=T0, timeout=999))
    of.set_members(frozenset({ME}), T0, answers=of.members_wanted)
    assert set(released(of, T0 + SETTLE)) == {"a", "b"}


def test_a_replica_that_is_alone_for_good_waits_for_no_list() -> None:
    of = Router(ME, booted_at=BOOT, rng=Random(0))
    of.apply(ServerSeen(server()), BOOT)
    see(of, BOOT, pod("a"))
    see(of, T0, pod("a", version=2, deleted_at=T0))
    assert of.members_wanted == 0
    assert set(released(of, T0 + SETTLE)) == {"a"}


def test_a_gates_drain_wants_a_mark_on_the_pod_unless_a_deletion_follows() -> None:
    of = member(pod("a"), pod("b"))
    for uid in "ab":
        of.gate_calls(uid, T0)
    assert of.unmarked(T0 + 0.5) == []
    see(of, T0 + 0.7, pod("b", version=2, deleted_at=T0))
    ((uid, mark),) = of.unmarked(T0 + 1)
    assert (uid, mark.incarnation) == ("a", "c1")


def test_a_gates_drain_is_over_only_once_its_mark_is_on_the_pod_and_everybody_agrees() -> None:
    of = member(pod("a"))
    of.gate_calls("a", T0)
    of.hear(OTHER, {"a": Word(0, frozenset({"gate/c1"}))}, T0)
    of.set_members(BOTH, T0 + 1, answers=of.members_wanted)
    assert not safe(of, T0 + 20)
    see(of, T0 + 20, pod("a", version=2, gate_mark="c1"))
    assert not safe(of, T0 + 25)
    of.set_members(BOTH, T0 + 25, answers=of.members_wanted)
    assert safe(of, T0 + 25)
    assert of.unmarked(T0 + 25) == []


def test_a_gates_mark_drains_the_pod_at_a_replica_that_the_gate_never_called() -> None:
    of = member(pod("a", gate_mark="c1"))
    assert state(of, "a") is DRAINING
    see(of, T0, pod("a", version=2, gate_mark="c1", incarnation="c2"))
    assert state(of, "a") is READY
    see(of, T0, pod("a", version=3, gate_mark="c1", incarnation="c2"))
    assert state(of, "a") is READY


def test_another_members_word_passes_the_gates_call_on() -> None:
    of = member(pod("a"), pod("b", incarnation="c2"))
    of.hear(OTHER, {uid: Word(1, frozenset({"gate/c1"})) for uid in "ab"}, T0)
    assert (state(of, "a"), state(of, "b")) == (DRAINING, READY)


def test_a_manual_drain_is_not_passed_on_by_words_because_nobody_would_take_it_back() -> None:
    of = member(pod("a"))
    of.hear(OTHER, {"a": Word(0, frozenset({"manual/7"}))}, T0)
    assert state(of, "a") is READY


def test_a_manual_drain_wants_a_mark_until_its_own_is_seen() -> None:
    of = member(pod("a"))
    of.drain("a", 7, T0)
    see(of, T0 + 1, pod("a", version=2, cordon=3))
    assert [(uid, mark.generation) for uid, mark in of.unmarked(T0 + 1)] == [("a", 7)]
    see(of, T0 + 2, pod("a", version=3, cordon=7))
    assert of.unmarked(T0 + 2) == []


def test_a_word_for_another_mark_is_no_acknowledgement() -> None:
    of = member(pod("a"))
    of.gate_calls("a", T0)
    of.hear(OTHER, {"a": Word(0, frozenset({"gate/c1"}))}, T0)
    see(of, T0 + 1, pod("a", version=2, deleted_at=T0, timeout=999))
    of.set_members(BOTH, T0 + 1, answers=of.members_wanted)
    assert released(of, T0 + 30) == {}
    told = of.drain_status("a")
    assert told is not None
    assert told.waiting_for == (OTHER,)
    of.hear(OTHER, deletion(), T0 + 30)
    assert set(released(of, T0 + 30 + SETTLE)) == {"a"}


def test_a_word_for_a_deletion_that_is_not_seen_here_yet_counts_when_it_is() -> None:
    of = member(pod("a"))
    of.gate_calls("a", T0)
    of.hear(OTHER, deletion(), T0)
    see(of, T0 + 1, pod("a", version=2, deleted_at=T0, timeout=999))
    of.set_members(BOTH, T0 + 1, answers=of.members_wanted)
    assert set(released(of, T0 + 1 + SETTLE)) == {"a"}


def test_a_manual_drain_that_ends_leaves_the_gates_drain_to_be_agreed_anew() -> None:
    of = member(pod("a"))
    of.gate_calls("a", T0)
    see(of, T0, pod("a", version=2, cordon=1, gate_mark="c1"))
    of.set_members(BOTH, T0, answers=of.members_wanted)
    of.hear(OTHER, {"a": Word(0, frozenset({"manual/1"}))}, T0)
    assert safe(of, T0 + 9)
    see(of, T0 + 10, pod("a", version=3, gate_mark="c1"))
    assert not safe(of, T0 + 20)
    of.hear(OTHER, {"a": Word(0, frozenset({"gate/c1"}))}, T0 + 20)
    assert safe(of, T0 + 20 + SETTLE)


def test_a_member_that_came_and_left_unmet_may_have_given_leases() -> None:
    of = member(pod("a"), members=frozenset({ME}))
    of.set_members(frozenset({ME}), T0, answers=of.members_wanted, left=frozenset({THIRD}))
    see(of, T0, pod("a", version=2, deleted_at=T0, timeout=999))
    of.set_members(frozenset({ME}), T0, answers=of.members_wanted, left=frozenset({THIRD}))
    assert released(of, T0 + 30) == {}
    for second in (30, 31):
        of.engine_read("a", idle=True, now=T0 + second)
    assert set(released(of, T0 + 31)) == {"a"}


def test_what_a_member_says_of_its_drains_names_their_marks() -> None:
    of = member(pod("a"), pod("b"))
    pick(of, T0)
    of.gate_calls("a", T0)
    see(of, T0, pod("a", version=2, deleted_at=T0, timeout=999))
    assert of.words(T0)["a"].marks == {"gate/c1", "deletion"}
    assert set(of.words(T0)) == {"a"}


def test_a_fixed_address_drains_by_hand_without_a_mark() -> None:
    of = member(pod("a", created_at=0.0), members=frozenset({ME}))
    attempt = pick(of, T0).attempt
    of.drain("a", 1, T0)
    assert of.unmarked(T0 + 5) == []
    of.set_members(frozenset({ME}), T0, answers=of.members_wanted)
    see(of, T0 + 1, pod("a", version=2, created_at=0.0))
    assert not safe(of, T0 + 5)
    of.release(attempt, Outcome.COMPLETED, T0 + 6)
    assert safe(of, T0 + 6)


def test_a_member_that_stops_must_agree_but_needs_no_part_of_the_capacity() -> None:
    of = member(pod("a", capacity=4))
    assert limit(of) == 2
    of.set_members(BOTH, T0, answers=of.members_wanted, sharing=1)
    assert limit(of) == 4
    see(of, T0, pod("a", version=2, deleted_at=T0, timeout=999))
    of.set_members(BOTH, T0, answers=of.members_wanted, sharing=1)
    assert released(of, T0 + 30) == {}


def limit(of: Router) -> int:
    """Return how many requests the router takes until it is full, and end them."""
    taken = []
    while isinstance(got := of.acquire(Request(MODEL), T0), Pick):
        taken.append(got.attempt)
    for attempt in taken:
        of.release(attempt, Outcome.COMPLETED, T0)
    return len(taken)


def test_a_late_word_for_an_earlier_mark_does_not_replace_one_for_this() -> None:
    of = member(pod("a"))
    see(of, T0, pod("a", version=2, deleted_at=T0, timeout=999))
    of.set_members(BOTH, T0, answers=of.members_wanted)
    of.hear(OTHER, deletion(in_flight=1), T0)
    of.hear(OTHER, {"a": Word(0, frozenset({"gate/c0"}))}, T0 + 1)
    assert released(of, T0 + 30) == {}
    of.hear(OTHER, deletion(), T0 + 30)
    assert set(released(of, T0 + 30)) == {"a"}
