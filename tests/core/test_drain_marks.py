"""Who may start, raise and cancel a drain: deletions, people, gates; and news that come late."""

import pytest
from tests.core.world import BOOT, ME, OTHER, SETTLE, pick, pod, refused, released, router, see, state

from tailrace.core.model import DrainOutcome, DrainReason, DrainStatus, EndpointState, Outcome, RefusalCode
from tailrace.core.router import Router

T0 = BOOT + 10
BOTH = frozenset({ME, OTHER})
DRAINING, DRAINED, READY, STARTING = (
    EndpointState.DRAINING,
    EndpointState.DRAINED,
    EndpointState.READY,
    EndpointState.STARTING,
)


def reason(of: Router) -> DrainReason | None:
    """Return why pod a drains."""
    told = of.drain_status("a")
    assert told is not None
    return told.reason


# Deletion is absorbing


@pytest.mark.parametrize("version", [1, 2, 3])
def test_no_news_old_or_new_brings_a_deleted_pod_back(version: int) -> None:
    of = router(pod("a", version=1))
    see(of, T0, pod("a", version=2, deleted_at=T0))
    see(of, T0 + 1, pod("a", version=version, incarnation="c2"))
    of.resume("a", 99)
    assert state(of, "a") is DRAINING
    assert refused(of, T0 + 1) is RefusalCode.NO_ENDPOINTS
    assert set(released(of, T0 + 9)) == {"a"}


def test_a_second_deletion_changes_nothing_of_the_first() -> None:
    of = router(pod("a"))
    see(of, T0, pod("a", version=2, deleted_at=T0))
    see(of, T0 + 1, pod("a", version=3, deleted_at=T0 + 1, timeout=1))
    told = of.drain_status("a")
    assert told is not None
    assert told.deadline == T0 + 60


def test_a_deleted_pod_cannot_be_cancelled_by_a_person_or_a_new_container() -> None:
    of = router(pod("a", cordon=1))
    of.gate_calls("a", T0)
    see(of, T0, pod("a", version=2, cordon=1, deleted_at=T0))
    see(of, T0, pod("a", version=3, incarnation="c2"))
    assert state(of, "a") is DRAINING
    assert reason(of) is DrainReason.DELETE


# By hand


def test_a_manual_drain_ends_with_a_resume_of_a_higher_generation() -> None:
    of = router(pod("a"))
    told = of.drain("a", 1, T0)
    assert told is not None
    assert (told.state, told.reason, told.deadline) == (DRAINING, DrainReason.MANUAL, None)
    assert refused(of, T0) is RefusalCode.NO_ENDPOINTS
    of.resume("a", 2)
    assert state(of, "a") is READY
    assert pick(of, T0 + 1).uid == "a"


def test_a_manual_drain_is_over_when_nothing_is_in_flight_but_releases_nothing() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    assert released(of, T0 + SETTLE) == {}
    told = of.drain_status("a")
    assert told is not None
    assert (told.state, told.safe_to_delete) == (DRAINED, True)


def test_a_pod_that_has_drained_by_hand_can_be_resumed() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    of.releasable(T0 + SETTLE)
    of.resume("a", 2)
    assert pick(of, T0 + 9).uid == "a"


def test_a_resumed_pod_that_is_not_ready_waits_until_it_is() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    see(of, T0, pod("a", version=2, ready=False))
    of.resume("a", 2)
    assert state(of, "a") is STARTING
    see(of, T0, pod("a", version=3))
    assert pick(of, T0 + 1).uid == "a"


def test_a_resumed_pod_of_a_machine_that_is_gone_gets_nothing_though_it_was_ready() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    see(of, T0, pod("a", version=2, ended=True))
    of.resume("a", 2)
    assert state(of, "a") is STARTING


@pytest.mark.parametrize(("generation", "after"), [(4, DRAINING), (5, READY), (6, READY)])
def test_a_resume_of_a_lower_generation_is_old_news(generation: int, after: EndpointState) -> None:
    of = router(pod("a"))
    of.drain("a", 5, T0)
    of.resume("a", generation)
    assert state(of, "a") is after


def test_a_drain_that_arrives_after_its_resume_is_old_news() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    of.resume("a", 2)
    of.drain("a", 1, T0 + 1)
    of.drain("a", 2, T0 + 1)
    assert state(of, "a") is READY
    of.drain("a", 3, T0 + 2)
    assert state(of, "a") is DRAINING


def test_resumes_that_arrive_out_of_order_keep_the_highest() -> None:
    of = router(pod("a"))
    of.resume("a", 5)
    of.resume("a", 2)
    of.drain("a", 4, T0)
    assert state(of, "a") is READY


def test_a_higher_generation_of_a_running_drain_needs_a_higher_resume() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    of.drain("a", 7, T0)
    of.resume("a", 3)
    assert state(of, "a") is DRAINING


def test_a_mark_on_the_pod_drains_it_and_its_removal_brings_it_back() -> None:
    of = router(pod("a"))
    see(of, T0, pod("a", version=2, cordon=1))
    assert state(of, "a") is DRAINING
    see(of, T0, pod("a", version=3, cordon=1))
    assert state(of, "a") is DRAINING
    see(of, T0, pod("a", version=4))
    assert pick(of, T0).uid == "a"


def test_a_removed_mark_on_a_pod_that_is_not_ready_brings_it_back_when_it_is() -> None:
    of = router(pod("a", cordon=1))
    see(of, T0, pod("a", version=2, ready=False))
    assert state(of, "a") is STARTING
    see(of, T0, pod("a", version=3))
    assert state(of, "a") is READY


def test_a_drain_by_the_interface_stands_until_its_mark_was_there_and_has_gone() -> None:
    of = router(pod("a"))
    of.drain("a", 3, T0)
    see(of, T0, pod("a", version=2))
    assert state(of, "a") is DRAINING
    see(of, T0, pod("a", version=3, cordon=3))
    see(of, T0, pod("a", version=4))
    assert state(of, "a") is READY


def test_a_resume_outlives_the_mark_that_is_still_on_the_pod() -> None:
    of = router(pod("a"))
    see(of, T0, pod("a", version=2, cordon=3))
    of.resume("a", 4)
    see(of, T0, pod("a", version=3, cordon=3))
    assert state(of, "a") is READY


def test_after_the_mark_has_gone_a_person_may_set_one_again() -> None:
    of = router(pod("a", cordon=3))
    of.resume("a", 4)
    see(of, T0, pod("a", version=2))
    see(of, T0, pod("a", version=3, cordon=1))
    assert state(of, "a") is DRAINING


def test_a_resumed_pod_can_be_drained_again_from_the_beginning() -> None:
    of = router(pod("a"), members=BOTH)
    of.drain("a", 1, T0)
    of.ack(OTHER, "a", 0, T0)
    of.releasable(T0 + SETTLE)
    of.resume("a", 2)
    attempt = pick(of, T0 + 9).attempt
    told = of.drain("a", 3, T0 + 10)
    assert told is not None
    assert (told.in_flight, told.safe_to_delete) == (1, False)
    of.release(attempt, Outcome.COMPLETED, T0 + 11)
    of.releasable(T0 + 20)
    assert state(of, "a") is DRAINING  # the other member has not agreed to this one
    of.ack(OTHER, "a", 0, T0 + 20)
    of.releasable(T0 + 20 + SETTLE)
    assert state(of, "a") is DRAINED


def test_nothing_is_known_of_a_uid_never_heard_of() -> None:
    of = router(pod("a"))
    assert of.drain("who", 1, T0) is None
    assert of.resume("who", 1) is None
    assert of.gate_calls("who", T0) is None


# By a gate


def test_a_gate_may_call_before_the_deletion_is_seen() -> None:
    of = router(pod("a"))
    told = of.gate_calls("a", T0)
    assert isinstance(told, DrainStatus)
    assert (told.state, told.reason) == (DRAINING, DrainReason.GATE)
    see(of, T0 + 0.2, pod("a", version=2, deleted_at=T0))
    assert reason(of) is DrainReason.DELETE
    assert set(released(of, T0 + 0.2 + SETTLE)) == {"a"}


def test_a_gates_drain_without_deletion_ends_when_a_new_container_is_ready() -> None:
    of = router(pod("a"))
    of.gate_calls("a", T0)
    see(of, T0, pod("a", version=2))
    see(of, T0, pod("a", version=3, ready=False))
    see(of, T0, pod("a", version=4, ready=False, incarnation="c2"))
    assert state(of, "a") is DRAINING
    see(of, T0, pod("a", version=5, incarnation="c2"))
    assert pick(of, T0 + 1).uid == "a"


def test_a_gates_drain_that_is_over_ends_in_the_same_way() -> None:
    of = router(pod("a"))
    of.gate_calls("a", T0)
    of.releasable(T0 + SETTLE)
    assert state(of, "a") is DRAINED
    see(of, T0 + 9, pod("a", version=2, incarnation="c2"))
    assert pick(of, T0 + 9).uid == "a"


def test_a_gate_that_calls_again_changes_nothing() -> None:
    of = router(pod("a"))
    of.gate_calls("a", T0)
    see(of, T0, pod("a", version=2, ready=False, incarnation="c2"))
    of.gate_calls("a", T0 + 1)
    see(of, T0 + 1, pod("a", version=3, incarnation="c2"))
    assert state(of, "a") is READY


def test_a_person_does_not_resume_a_pod_whose_container_is_being_killed() -> None:
    of = router(pod("a"))
    of.drain("a", 1, T0)
    of.gate_calls("a", T0)
    of.resume("a", 2)
    assert (state(of, "a"), reason(of)) == (DRAINING, DrainReason.GATE)
    see(of, T0, pod("a", version=2, incarnation="c2"))
    assert state(of, "a") is READY


def test_a_new_container_does_not_bring_a_pod_back_that_a_person_drains() -> None:
    of = router(pod("a"))
    of.gate_calls("a", T0)
    see(of, T0, pod("a", version=2, cordon=1))
    see(of, T0, pod("a", version=3, cordon=1, incarnation="c2"))
    assert (state(of, "a"), reason(of)) == (DRAINING, DrainReason.MANUAL)
    see(of, T0, pod("a", version=4, incarnation="c2"))
    assert state(of, "a") is READY


# What a deletion makes of an earlier drain


@pytest.mark.parametrize("first", ["manual", "gate"])
def test_a_deletion_asks_every_member_again(first: str) -> None:
    """The other member agreed to the drain before, has cancelled it meanwhile and is sending requests again."""
    of = router(pod("a"), members=BOTH)
    _ = of.drain("a", 1, T0) if first == "manual" else of.gate_calls("a", T0)
    of.ack(OTHER, "a", 0, T0)
    of.releasable(T0 + SETTLE)
    assert state(of, "a") is DRAINED
    see(of, T0 + 20, pod("a", version=2, deleted_at=T0 + 20))
    assert released(of, T0 + 30) == {}
    of.ack(OTHER, "a", 1, T0 + 30)
    assert released(of, T0 + 40) == {}
    of.ack(OTHER, "a", 0, T0 + 41)
    release = released(of, T0 + 41)["a"]
    assert (release.outcome, release.in_flight_at_start) == (DrainOutcome.DRAINED, 0)


def test_a_deletion_keeps_the_figures_of_the_drain_that_the_gate_had_begun() -> None:
    of = router(pod("a"))
    attempts = [pick(of).attempt for _ in range(2)]
    of.gate_calls("a", T0)
    of.release(attempts[0], Outcome.COMPLETED, T0 + 0.1)
    see(of, T0 + 0.2, pod("a", version=2, deleted_at=T0))
    of.release(attempts[1], Outcome.LOST, T0 + 1)
    release = released(of, T0 + 9)["a"]
    assert (release.in_flight_at_start, release.finished, release.lost) == (2, 1, 1)


def test_a_deletion_begins_new_figures_when_the_drain_before_was_over() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    of.drain("a", 1, T0)
    of.release(attempt, Outcome.COMPLETED, T0 + 1)
    of.releasable(T0 + 9)
    see(of, T0 + 20, pod("a", version=2, deleted_at=T0 + 20))
    release = released(of, T0 + 30)["a"]
    assert (release.in_flight_at_start, release.finished, release.lost) == (0, 0, 0)
    assert release.started_at == T0 + 20


def test_a_deletion_of_an_endpoint_that_is_not_known_to_have_been_ready_drains_it_too() -> None:
    of = router(pod("a", ready=False, cordon=1))
    assert state(of, "a") is DRAINING
    see(of, T0, pod("a", version=2, ready=False, deleted_at=T0))
    assert set(released(of, T0)) == {"a"}


def test_neither_people_nor_gates_are_hurried_by_a_deadline_or_an_end() -> None:
    of = router(pod("a", cordon=1, ended=True), members=BOTH)
    assert released(of, T0 + 1e6) == {}
    assert state(of, "a") is DRAINING
