"""When a drain is over: each rule of the barrier, the deadline, what ends at once, and the figures."""

import pytest
from tests.core.world import (
    BOOT,
    ME,
    OTHER,
    SETTLE,
    THIRD,
    TOTAL,
    pick,
    pod,
    refused,
    released,
    router,
    see,
    server,
    state,
)

from tailrace.core.drain import CUT_SECONDS
from tailrace.core.model import (
    DrainOutcome,
    DrainReason,
    EndpointGone,
    EndpointState,
    Outcome,
    RefusalCode,
    ServerSeen,
)
from tailrace.core.router import Router

T0 = BOOT + 10
OLD = BOOT - 100
BOTH = frozenset({ME, OTHER})


def deleted(of: Router, now: float = T0, timeout: float = 60.0, *, ended: bool = False, uid: str = "a") -> None:
    """Let the router see the pod's deletion, begun now."""
    see(of, now, pod(uid, version=2, deleted_at=now, timeout=timeout, ended=ended))


def outcome(of: Router, now: float) -> DrainOutcome | None:
    """Return how the drain of pod a ended, None while it has not."""
    release = released(of, now).get("a")
    return release.outcome if release else None


# The barrier, rule by rule


def test_a_deleted_pod_gets_no_request_from_the_moment_it_is_seen() -> None:
    of = router(pod("a"))
    deleted(of)
    assert state(of, "a") is EndpointState.DRAINING
    assert refused(of, T0) is RefusalCode.NO_ENDPOINTS


def test_an_idle_pod_is_released_after_the_settle_time_and_not_before() -> None:
    of = router(pod("a"))
    deleted(of)
    assert outcome(of, T0 + SETTLE - 0.01) is None
    assert outcome(of, T0 + SETTLE) is DrainOutcome.DRAINED
    assert state(of, "a") is EndpointState.DRAINED


def test_a_pod_with_a_request_in_flight_is_held_until_it_ends() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    deleted(of)
    assert outcome(of, T0 + 30) is None
    of.release(attempt, Outcome.COMPLETED, T0 + 31)
    assert outcome(of, T0 + 31) is DrainOutcome.DRAINED


def test_every_member_must_have_acknowledged() -> None:
    of = router(pod("a"), members=frozenset({ME, OTHER, THIRD}))
    deleted(of)
    of.ack(OTHER, "a", 0, T0 + 1)
    assert outcome(of, T0 + 30) is None
    of.ack(THIRD, "a", 0, T0 + 30)
    assert outcome(of, T0 + 30 + SETTLE) is DrainOutcome.DRAINED


def test_a_silent_member_holds_the_drain_up_to_the_deadline() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    assert outcome(of, T0 + 59.9) is None
    assert outcome(of, T0 + 60) is DrainOutcome.DEADLINE


def test_every_member_must_report_nothing_in_flight() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 1, T0)
    assert outcome(of, T0 + 30) is None
    of.ack(OTHER, "a", 0, T0 + 30)
    assert outcome(of, T0 + 30) is DrainOutcome.DRAINED


def test_the_settle_time_counts_from_the_last_first_acknowledgement() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 0, T0 + 5)
    of.ack(OTHER, "a", 0, T0 + 6)
    assert outcome(of, T0 + 5 + SETTLE - 0.01) is None
    assert outcome(of, T0 + 5 + SETTLE) is DrainOutcome.DRAINED


def test_a_member_that_joins_during_the_drain_must_agree_too() -> None:
    of = router(pod("a"))
    deleted(of)
    of.set_members(BOTH, T0 + 1)
    assert outcome(of, T0 + 30) is None
    of.ack(OTHER, "a", 0, T0 + 30)
    assert outcome(of, T0 + 30 + SETTLE) is DrainOutcome.DRAINED


def test_a_word_of_a_member_that_is_not_known_yet_counts_once_it_is() -> None:
    of = router(pod("a"))
    deleted(of)
    of.ack(OTHER, "a", 1, T0)
    of.set_members(BOTH, T0)
    assert outcome(of, T0 + 30) is None
    of.ack(OTHER, "a", 0, T0 + 30)
    assert outcome(of, T0 + 30) is DrainOutcome.DRAINED


def test_late_words_of_a_member_that_left_hold_nothing_up() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 0, T0)
    of.set_members(frozenset(), T0 + 1)
    of.ack(OTHER, "a", 3, T0 + 2)
    assert outcome(of, T0 + 3) is DrainOutcome.DRAINED


def test_nobody_acknowledges_in_this_replicas_name() -> None:
    of = router(pod("a"))
    pick(of)
    deleted(of)
    of.ack(ME, "a", 0, T0)
    assert outcome(of, T0 + 30) is None
    told = of.drain_status("a")
    of.ack(ME, "a", 5, T0 + 30)
    assert of.drain_status("a") == told


def test_a_member_that_left_and_came_back_must_agree_again() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 0, T0)
    of.set_members(frozenset(), T0 + 1)
    of.set_members(BOTH, T0 + 1)
    assert outcome(of, T0 + 30) is None


def test_an_acknowledgement_of_a_drain_that_nobody_has_begun_is_nothing() -> None:
    of = router(pod("a"), members=BOTH)
    of.ack(OTHER, "a", 0, T0)
    of.ack(OTHER, "who", 0, T0)
    deleted(of)
    assert outcome(of, T0 + 30) is None


# What is unknown


def test_a_lease_that_ran_out_is_unknown_and_not_an_end() -> None:
    of = router(pod("a"))
    pick(of, T0, leased=True)
    deleted(of, timeout=2 * TOTAL)
    assert outcome(of, T0 + TOTAL + 10) is None
    assert of.questions(T0 + TOTAL + 10) == {"a": ("a:8000", "vllm")}
    assert outcome(of, T0 + 2 * TOTAL) is DrainOutcome.DEADLINE


def test_an_engine_that_reads_idle_twice_a_second_apart_settles_what_is_unknown() -> None:
    of = router(pod("a"))
    pick(of, T0, leased=True)
    deleted(of, timeout=2 * TOTAL)
    later = T0 + TOTAL + 1
    of.releasable(later)
    of.engine_read("a", idle=True, now=later)
    of.engine_read("a", idle=True, now=later + 0.99)
    assert outcome(of, later + 0.99) is None
    of.engine_read("a", idle=True, now=later + 1.0)
    assert outcome(of, later + 1.0) is DrainOutcome.DRAINED


def test_a_busy_reading_starts_the_count_anew() -> None:
    of = router(pod("a"))
    pick(of, T0, leased=True)
    deleted(of, timeout=2 * TOTAL)
    later = T0 + TOTAL + 1
    of.releasable(later)
    for after, idle in ((0, True), (2, False), (4, True)):
        of.engine_read("a", idle=idle, now=later + after)
        assert outcome(of, later + after) is None
    of.engine_read("a", idle=True, now=later + 5)
    assert outcome(of, later + 5) is DrainOutcome.DRAINED


def test_readings_taken_while_this_replica_has_a_request_there_do_not_count() -> None:
    of = router(pod("a", created_at=OLD))
    attempt = pick(of).attempt
    deleted(of)
    assert of.questions(T0) == {}
    of.engine_read("a", idle=True, now=T0)
    of.release(attempt, Outcome.COMPLETED, T0 + 1)
    of.engine_read("a", idle=True, now=T0 + 2)
    assert outcome(of, T0 + 3) is None
    of.engine_read("a", idle=True, now=T0 + 3)
    assert outcome(of, T0 + 3) is DrainOutcome.DRAINED


def test_readings_of_a_drain_that_was_cancelled_do_not_count_for_the_next() -> None:
    of = router(pod("a", created_at=OLD))
    of.drain("a", 1, T0)
    of.engine_read("a", idle=True, now=T0)
    of.resume("a", 2)
    deleted(of, T0 + 5)
    of.engine_read("a", idle=True, now=T0 + 6)
    assert outcome(of, T0 + 10) is None
    of.engine_read("a", idle=True, now=T0 + 10)
    assert outcome(of, T0 + 10) is DrainOutcome.DRAINED


def test_a_reading_of_an_endpoint_that_does_not_drain_is_nothing() -> None:
    of = router(pod("a", created_at=OLD))
    for second in (0, 1, 2):
        of.engine_read("a", idle=True, now=T0 + second)
    deleted(of, T0 + 3)
    assert outcome(of, T0 + 20) is None


def test_a_replica_that_started_after_the_pod_knows_nothing_of_it_for_as_long_as_a_lease_may_live() -> None:
    of = router(pod("a", created_at=OLD))
    deleted(of, timeout=2 * TOTAL)
    assert outcome(of, BOOT + TOTAL - 0.01) is None
    assert outcome(of, BOOT + TOTAL) is DrainOutcome.DRAINED


def test_blindness_follows_the_servers_own_time_limit_even_if_the_server_is_seen_later() -> None:
    of = router(pod("a", of="ns/late", created_at=OLD))
    of.apply(ServerSeen(server("late", total=3600.0)), BOOT)
    deleted(of, timeout=9999.0)
    see(of, T0, pod("a", of="ns/late", version=3, created_at=OLD, deleted_at=T0, timeout=9999.0))
    assert outcome(of, BOOT + 3599) is None
    assert outcome(of, BOOT + 3600) is DrainOutcome.DRAINED


def test_a_pod_created_after_the_start_needs_no_engine() -> None:
    of = router(pod("a"))
    deleted(of)
    assert of.questions(T0 + 1) == {}


def test_what_is_unknown_here_is_reported_to_the_others_as_in_flight() -> None:
    of = router(pod("a"), pod("b"), pod("c", created_at=OLD), pod("d"))
    leased = next(p for p in (pick(of, T0, leased=True) for _ in range(12)) if p.uid == "a")
    for uid in "abc":
        see(of, T0, pod(uid, version=2, deleted_at=T0, timeout=9999.0))
    words = of.words(T0)
    assert set(words) == {"a", "b", "c"}
    assert words["c"].in_flight > words["b"].in_flight
    of.complete(leased.attempt, Outcome.COMPLETED, T0 + 1)
    assert of.words(T0 + 1)["a"].in_flight == words["a"].in_flight - 1
    later = T0 + TOTAL
    assert of.words(later)["a"].in_flight == words["a"].in_flight - 1  # run out: unknown, so still counted
    assert of.in_flight() == 0


def test_leases_of_a_member_that_left_are_unknown() -> None:
    of = router(pod("a"), members=BOTH)
    of.set_members(frozenset(), T0)
    deleted(of, T0, timeout=2 * TOTAL)
    assert outcome(of, T0 + TOTAL - 1) is None
    assert outcome(of, T0 + TOTAL) is DrainOutcome.DRAINED


def test_a_member_that_left_after_it_had_reported_zero_leaves_nothing_unknown() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 0, T0)
    of.set_members(frozenset(), T0 + 1)
    assert outcome(of, T0 + SETTLE) is DrainOutcome.DRAINED


@pytest.mark.parametrize("word", [None, 2])
def test_a_member_that_left_while_it_was_busy_or_silent_leaves_the_drain_to_the_engine(word: int | None) -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    if word is not None:
        of.ack(OTHER, "a", word, T0)
    of.set_members(frozenset(), T0 + 1)
    assert outcome(of, T0 + 30) is None
    of.engine_read("a", idle=True, now=T0 + 30)
    of.engine_read("a", idle=True, now=T0 + 31)
    assert outcome(of, T0 + 31) is DrainOutcome.DRAINED


def test_a_pod_first_seen_after_a_member_left_may_hold_that_members_leases() -> None:
    of = router(members=BOTH)
    of.set_members(frozenset(), T0)
    see(of, T0 + 1, pod("a", created_at=T0 - 1), pod("b", created_at=T0 + 0.5))
    for uid in "ab":
        see(of, T0 + 2, pod(uid, version=2, deleted_at=T0 + 2))
    assert set(released(of, T0 + 10)) == {"b"}


def test_without_a_time_the_last_observation_tells_when_a_member_left() -> None:
    of = router(pod("a"), members=BOTH)
    see(of, T0, pod("a", version=2))
    of.set_members(frozenset())
    deleted(of, T0 + 1, timeout=2 * TOTAL)
    assert outcome(of, T0 + TOTAL - 1) is None
    assert outcome(of, T0 + TOTAL) is DrainOutcome.DRAINED


def test_a_late_completion_of_a_lease_that_ran_out_makes_it_known_again() -> None:
    of = router(pod("a"))
    attempt = pick(of, T0, leased=True).attempt
    deleted(of, timeout=2 * TOTAL)
    later = T0 + TOTAL
    assert outcome(of, later) is None
    of.complete(attempt, Outcome.COMPLETED, later + 1)
    assert outcome(of, later + 1) is DrainOutcome.DRAINED


# Deadline, and what ends at once


def test_at_the_deadline_a_pod_without_requests_is_released() -> None:
    of = router(pod("a", created_at=OLD))
    deleted(of)
    assert outcome(of, T0 + 60) is DrainOutcome.DEADLINE


def test_after_the_deadline_the_doors_have_time_to_cut_what_is_left() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    deleted(of)
    assert of.overdue(T0 + 59.9) == []
    assert outcome(of, T0 + 60) is None
    assert of.overdue(T0 + 60) == [attempt]
    of.release(attempt, Outcome.CUT, T0 + 60.5)
    assert outcome(of, T0 + 60.5) is DrainOutcome.DEADLINE
    assert released(of, T0 + 60.5)["a"].lost == 1


def test_a_drain_that_ends_after_its_deadline_without_a_loss_is_drained_all_the_same() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    deleted(of)
    of.release(attempt, Outcome.REROUTED, T0 + 60.5)
    assert outcome(of, T0 + 60.5) is DrainOutcome.DRAINED


def test_a_loss_before_the_deadline_is_not_the_deadlines() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    deleted(of)
    of.release(attempt, Outcome.LOST, T0 + 30)
    assert outcome(of, T0 + 59) is DrainOutcome.DRAINED


def test_a_stuck_stream_does_not_pin_the_drain_beyond_that_time() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    deleted(of)
    assert outcome(of, T0 + 60 + CUT_SECONDS - 0.01) is None
    release = released(of, T0 + 60 + CUT_SECONDS)["a"]
    assert (release.outcome, release.lost, release.finished) == (DrainOutcome.DEADLINE, 1, 0)
    assert of.overdue(T0 + 63) == [attempt]
    of.release(attempt, Outcome.CUT, T0 + 64)
    assert released(of, T0 + 64)["a"].lost == 1


def test_the_doors_of_other_members_have_that_time_too() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 2, T0)
    assert outcome(of, T0 + 60) is None
    of.ack(OTHER, "a", 0, T0 + 61)
    assert released(of, T0 + 61)["a"].lost == 2


def test_leases_are_cut_at_the_deadline_by_the_router_itself() -> None:
    of = router(pod("a"))
    pick(of, T0, leased=True)
    deleted(of)
    release = released(of, T0 + 60)["a"]
    assert (release.outcome, release.lost) == (DrainOutcome.DEADLINE, 1)
    assert of.in_flight() == 0
    assert of.status().outcomes["cut"] == 1


@pytest.mark.parametrize("members", [frozenset(), BOTH])
def test_what_has_ended_is_released_at_once_whoever_is_silent(members: frozenset[str]) -> None:
    of = router(pod("a"), members=members)
    pick(of)
    deleted(of, ended=True)
    release = released(of, T0)["a"]
    assert (release.outcome, release.lost) == (DrainOutcome.ENDED, 1)


@pytest.mark.parametrize(("busy", "said"), [(True, DrainOutcome.DEADLINE), (False, DrainOutcome.ENDED)])
def test_what_has_ended_at_the_deadline_says_so_if_that_cost_requests(busy: bool, said: DrainOutcome) -> None:
    """The gate answers at the deadline too, and the pod may have ended before its last requests are booked."""
    of = router(pod("a"), members=BOTH)
    if busy:
        pick(of)
    deleted(of)
    see(of, T0 + 60, pod("a", version=9, deleted_at=T0, ended=True))
    release = released(of, T0 + 60)["a"]
    assert (release.outcome, release.lost) == (said, int(busy))


def test_a_pod_that_was_never_ready_is_released_at_once() -> None:
    of = router(pod("a", ready=False))
    deleted(of)
    assert outcome(of, T0) is DrainOutcome.ENDED


def test_a_pod_that_was_ready_once_must_settle_even_if_it_is_not_ready_now() -> None:
    of = router(pod("a"))
    see(of, BOOT, pod("a", version=2, ready=False))
    see(of, T0, pod("a", version=3, deleted_at=T0))
    assert outcome(of, T0) is None
    assert outcome(of, T0 + SETTLE) is DrainOutcome.DRAINED


def test_a_pod_never_seen_ready_here_may_have_been_so_for_another_member() -> None:
    of = router(members=BOTH)
    see(of, T0, pod("a", version=2, deleted_at=T0))
    assert outcome(of, T0 + 1) is None
    of.ack(OTHER, "a", 1, T0 + 1)
    assert outcome(of, T0 + 10) is None
    of.ack(OTHER, "a", 0, T0 + 10)
    assert outcome(of, T0 + 10) in (DrainOutcome.DRAINED, DrainOutcome.ENDED)


def test_a_pod_never_seen_ready_in_this_life_may_have_been_so_before() -> None:
    of = router(pod("a", ready=False, created_at=OLD))
    deleted(of)
    assert outcome(of, T0 + 30) is None


# What is said of it


def test_the_figures_add_up() -> None:
    of = router(pod("a", capacity=10))
    ends = (Outcome.COMPLETED, Outcome.FAILED, Outcome.CLIENT_GONE, Outcome.LOST, Outcome.CUT, Outcome.REROUTED)
    attempts = [pick(of).attempt for _ in ends]
    before = pick(of).attempt
    of.release(before, Outcome.COMPLETED, T0 - 1)
    see(of, T0, pod("a", version=2, capacity=10, deleted_at=T0 - 0.5, reason=DrainReason.ROLLOUT))
    for attempt, end in zip(attempts, ends, strict=True):
        of.release(attempt, end, T0 + 5)
    release = released(of, T0 + 6)["a"]
    assert (release.in_flight_at_start, release.finished, release.lost) == (6, 2, 3)
    assert (release.started_at, release.ended_at, release.reason) == (T0 - 0.5, T0 + 6, DrainReason.ROLLOUT)


def test_the_figures_include_what_other_members_report() -> None:
    of = router(pod("a"), members=BOTH)
    attempt = pick(of).attempt
    deleted(of)
    for after, count in ((0, 5), (1, 3), (2, 4), (3, 1)):
        of.ack(OTHER, "a", count, T0 + after)
    of.release(attempt, Outcome.COMPLETED, T0 + 4)
    of.ack(OTHER, "a", 0, T0 + 60)
    release = released(of, T0 + 60)["a"]
    assert (release.in_flight_at_start, release.finished, release.lost) == (6, 6, 1)


def test_what_a_member_had_in_flight_is_lost_when_it_leaves() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    of.ack(OTHER, "a", 2, T0)
    of.set_members(frozenset(), T0 + 1)
    release = released(of, T0 + 60)["a"]
    assert (release.in_flight_at_start, release.finished, release.lost) == (2, 0, 2)


def test_figures_stand_still_once_the_drain_is_over() -> None:
    of = router(pod("a"), members=BOTH)
    attempt = pick(of).attempt
    deleted(of)
    of.ack(OTHER, "a", 1, T0)
    before = released(of, T0 + 60 + CUT_SECONDS)["a"]
    of.release(attempt, Outcome.COMPLETED, T0 + 70)
    of.ack(OTHER, "a", 0, T0 + 70)
    of.ack(THIRD, "a", 4, T0 + 70)
    assert released(of, T0 + 71)["a"] == before


def test_a_drain_tells_where_it_stands() -> None:
    of = router(pod("a"), members=BOTH)
    attempt = pick(of).attempt
    deleted(of)
    of.ack(OTHER, "a", 2, T0)
    told = of.drain_status("a")
    assert told is not None
    assert (told.state, told.in_flight, told.safe_to_delete) == (EndpointState.DRAINING, 3, False)
    assert (told.deadline, told.reason) == (T0 + 60, DrainReason.DELETE)
    of.release(attempt, Outcome.COMPLETED, T0 + 1)
    of.ack(OTHER, "a", 0, T0 + 1)
    of.releasable(T0 + SETTLE)
    told = of.drain_status("a")
    assert told is not None
    assert (told.state, told.in_flight, told.safe_to_delete) == (EndpointState.DRAINED, 0, True)


def test_an_endpoint_without_a_drain_is_not_safe_to_delete() -> None:
    of = router(pod("a"))
    told = of.drain_status("a")
    assert told is not None
    assert (told.state, told.safe_to_delete, told.deadline, told.reason) == (EndpointState.READY, False, None, None)


def test_a_pod_that_is_gone_is_safe_to_delete_and_one_never_heard_of_is_not_known() -> None:
    of = router(pod("a"))
    deleted(of)
    of.apply(EndpointGone("a"), T0 + 1)
    told = of.drain_status("a")
    assert told is not None
    assert (told.state, told.safe_to_delete) == (EndpointState.GONE, True)
    assert released(of, T0 + 100) == {}
    assert of.drain_status("who") is None


def test_releases_are_state_that_may_be_read_again() -> None:
    of = router(pod("a"), pod("b"))
    deleted(of)
    assert released(of, T0 + 5) == released(of, T0 + 50)
    assert set(released(of, T0 + 50)) == {"a"}


def test_drains_under_way_are_counted() -> None:
    of = router(pod("a"), pod("b"))
    assert of.status().drains == 0
    deleted(of)
    assert of.status().drains == 1
    of.releasable(T0 + SETTLE)
    assert of.status().drains == 0


# When to look again


def test_the_next_deadline_walks_through_everything_that_the_clock_alone_decides() -> None:
    of = router(pod("a", created_at=OLD))
    assert of.next_deadline(T0) is None
    deleted(of)
    moments = []
    now: float | None = T0
    while now is not None and (now := of.next_deadline(now)) is not None:
        moments.append(now)
    assert moments == [T0 + SETTLE, T0 + 60, T0 + 60 + CUT_SECONDS, BOOT + TOTAL]


def test_a_member_that_has_not_acknowledged_sets_no_time_for_settling() -> None:
    of = router(pod("a"), members=BOTH)
    deleted(of)
    assert of.next_deadline(T0) == T0 + 60
    of.ack(OTHER, "a", 0, T0 + 1)
    assert of.next_deadline(T0 + 1) == T0 + 1 + SETTLE


def test_a_lease_sets_the_next_deadline() -> None:
    of = router(pod("a"))
    pick(of, T0, leased=True)
    assert of.next_deadline(T0) == T0 + TOTAL


def test_a_drain_that_is_over_needs_no_more_looks() -> None:
    of = router(pod("a"))
    deleted(of)
    of.releasable(T0 + SETTLE)
    assert of.next_deadline(T0 + SETTLE) is None


def test_changes_are_told_to_whoever_listens() -> None:
    of = router(pod("a"))
    attempt = pick(of).attempt
    told: list[int] = []
    of.on_change = lambda: told.append(of.revision)
    deleted(of)
    of.release(attempt, Outcome.COMPLETED, T0 + 1)
    of.releasable(T0 + 5)
    assert len(told) >= 3
    assert told == sorted(set(told))
