"""Leases: attempts that live until completed, renewed or expired."""

import hypothesis.strategies as st
from hypothesis import given
from tests.core.world import BOOT, ME, TOTAL, pick, pod, router, see, status

from tailrace.core.leases import Leases
from tailrace.core.model import EndpointGone, Outcome
from tailrace.core.router import REMEMBERED_ENDS, Completion

NOW = BOOT + 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["grant", "drop", "expire"]), st.integers(0, 4), st.integers(0, 20)), max_size=60
    )
)
def test_leases_end_as_in_a_plain_table(steps: list[tuple[str, int, int]]) -> None:
    leases, table, now = Leases(), dict[str, float](), 0.0
    for what, number, amount in steps:
        name = f"r{number}"
        if what == "grant":
            leases.grant(name, now + amount)
            table[name] = now + amount
        elif what == "drop":
            leases.drop(name)
            table.pop(name, None)
        else:
            now += amount / 4
            ended = {each for each, end in table.items() if end <= now}
            assert set(leases.expired(now)) == ended
            table = {each: end for each, end in table.items() if each not in ended}
        assert leases.next_end() == min(table.values(), default=None)


def test_a_lease_is_told_to_the_door_and_lives_as_long_as_a_request_may() -> None:
    of = router(pod("a"))
    assert pick(of, NOW, leased=True).expires_at == NOW + TOTAL
    assert pick(of, NOW).expires_at is None


def test_an_attempt_id_opens_with_the_member_that_knows_it() -> None:
    of = router(pod("a"))
    ids = [pick(of, NOW, leased=True).attempt for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(each.startswith(f"{ME}-") for each in ids)


def test_what_is_held_is_told_by_kind_with_the_age_of_the_oldest() -> None:
    of = router(pod("a"))
    assert of.held(NOW) == (0, 0, 0.0)
    first = pick(of, NOW, leased=True).attempt
    pick(of, NOW + 5)
    assert of.held(NOW + 7) == (1, 1, 7.0)
    of.complete(first, Outcome.COMPLETED, NOW + 8)
    assert of.held(NOW + 8) == (1, 0, 3.0)


def test_completing_a_lease_frees_its_slot_and_twice_is_answered_as_done() -> None:
    of = router(pod("a"))
    attempt = pick(of, NOW, leased=True).attempt
    assert of.complete(attempt, Outcome.COMPLETED, NOW) is Completion.DONE
    assert of.complete(attempt, Outcome.COMPLETED, NOW) is Completion.ALREADY
    assert of.complete("who", Outcome.COMPLETED, NOW) is Completion.UNKNOWN
    assert status(of, "a").in_flight == 0
    assert of.next_deadline(NOW) is None


def test_an_attempt_without_a_lease_is_completed_by_its_door_alone() -> None:
    of = router(pod("a"))
    attempt = pick(of, NOW).attempt
    assert of.complete(attempt, Outcome.COMPLETED, NOW) is Completion.UNKNOWN
    assert of.renew(attempt, NOW) is None
    assert status(of, "a").in_flight == 1
    assert of.release(attempt, Outcome.COMPLETED, NOW)


def test_a_lease_that_runs_out_frees_its_slot_and_leaves_an_unknown() -> None:
    of = router(pod("a", capacity=1))
    attempt = pick(of, NOW, leased=True).attempt
    again = pick(of, NOW + TOTAL, leased=True)
    assert again.uid == "a"
    told = status(of, "a")
    assert (told.in_flight, told.unknown) == (1, 1)
    assert of.complete(attempt, Outcome.COMPLETED, NOW + TOTAL) is Completion.ALREADY
    assert status(of, "a").unknown == 0
    assert of.complete(attempt, Outcome.COMPLETED, NOW + TOTAL) is Completion.ALREADY
    assert of.status().outcomes["expired"] == 1


def test_a_renewed_lease_lives_from_then_on() -> None:
    of = router(pod("a"))
    attempt = pick(of, NOW, leased=True).attempt
    assert of.renew(attempt, NOW + 500) == NOW + 500 + TOTAL
    of.releasable(NOW + TOTAL)
    assert of.in_flight() == 1
    of.releasable(NOW + 500 + TOTAL)
    assert of.in_flight() == 0


def test_what_is_no_lease_or_has_run_out_cannot_be_renewed() -> None:
    of = router(pod("a"))
    plain, leased = pick(of, NOW).attempt, pick(of, NOW, leased=True).attempt
    assert of.renew(plain, NOW) is None
    assert of.renew("who", NOW) is None
    assert of.renew(leased, NOW + TOTAL) is None
    assert of.in_flight() == 1


def test_leases_at_a_pod_that_is_gone_are_lost_and_other_attempts_end_with_their_door() -> None:
    of = router(pod("a"))
    leased, plain = pick(of, NOW, leased=True).attempt, pick(of, NOW).attempt
    see(of, NOW, pod("a", version=2, deleted_at=NOW))
    of.apply(EndpointGone("a"), NOW)
    assert of.status().outcomes["lost"] == 1
    assert of.complete(leased, Outcome.COMPLETED, NOW) is Completion.ALREADY
    assert of.release(plain, Outcome.LOST, NOW)
    assert not of.release(plain, Outcome.LOST, NOW)
    assert of.in_flight() == 0


def test_the_memory_of_ended_leases_is_bounded() -> None:
    of = router(pod("a"))
    first = pick(of, NOW, leased=True).attempt
    of.complete(first, Outcome.COMPLETED, NOW)
    for _ in range(REMEMBERED_ENDS):
        of.complete(pick(of, NOW, leased=True).attempt, Outcome.COMPLETED, NOW)
    assert of.complete(first, Outcome.COMPLETED, NOW) is Completion.UNKNOWN


def test_leases_that_are_over_take_no_room_behind_one_that_lasts() -> None:
    leases = Leases()
    leases.grant("forgotten", 600.0)
    for number in range(10_000):
        leases.grant(f"one-{number}", 700.0 + number)
        leases.drop(f"one-{number}")
    assert len(leases._heap) < 2000
    assert leases.next_end() == 600.0
    assert leases.expired(600.0) == ["forgotten"]
    assert leases.next_end() is None
