"""Who leads: the decision by tables, and the election against an API that can fail."""

from typing import Any

import pytest

from tailrace.kube.client import ApiError, Document
from tailrace.kube.lease import Election, Move, Sight, decide, look, record


def lease(holder: str, renewed: str = "t0", seconds: int = 15) -> Document:
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": seconds}}


@pytest.mark.parametrize(
    ("found", "seen_for", "move"),
    [
        (None, 0.0, Move.CREATE),
        (lease("me"), 100.0, Move.RENEW),
        (lease("other"), 14.9, Move.WAIT),
        (lease("other"), 15.0, Move.TAKE),
        (lease(""), 0.0, Move.TAKE),
    ],
)
def test_what_to_do_with_a_lease(found: Document | None, seen_for: float, move: Move) -> None:
    sight = Sight(("x",), 50.0)
    assert decide(found, sight, identity="me", now=50.0 + seen_for) is move


def test_only_a_changed_record_moves_the_moment_of_sight() -> None:
    first = look(lease("other", "t0"), Sight(None, 0.0), 1.0)
    assert look(lease("other", "t0"), first, 9.0) is first
    assert look(lease("other", "t1"), first, 9.0).since == 9.0


def test_a_taken_lease_counts_a_transition_and_a_renewed_one_keeps_its_begin() -> None:
    taken = record(lease("other"), identity="me", seconds=15, moment=0.0)
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("me", 1)
    renewed = record({"spec": taken}, identity="me", seconds=15, moment=5.0)
    assert (renewed["acquireTime"], renewed["leaseTransitions"]) == (taken["acquireTime"], 1)
    assert renewed["renewTime"] != taken["renewTime"]


class FakeApi:
    """One Lease in memory; ``down`` makes every call fail."""

    def __init__(self) -> None:
        self.lease: Document | None = None
        self.down = False

    async def get(self, *_: object) -> Document:
        self._fail_if_down()
        if self.lease is None:
            raise ApiError(404, "NotFound", "")
        return self.lease

    async def create(self, _: object, __: object, body: Document) -> Document:
        self._fail_if_down()
        self.lease = body
        return body

    async def replace(self, _: object, __: object, ___: object, body: Document) -> Document:
        self._fail_if_down()
        self.lease = body
        return body

    def _fail_if_down(self) -> None:
        if self.down:
            raise ApiError(0, "ConnectFailed", "")


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def election(api: Any, clock: Clock, told: list[bool], identity: str = "me") -> Election:  # noqa: ANN401
    return Election(
        api,
        namespace="ns",
        name="tailrace",
        identity=identity,
        seconds=15,
        renew_seconds=5,
        monotonic=clock,
        wall=clock,
        changed=told.append,
    )


async def test_a_leader_that_cannot_renew_gives_up_at_its_deadline_and_leads_again_afterwards() -> None:
    api, clock, told = FakeApi(), Clock(), list[bool]()
    me = election(api, clock, told)
    await me.step()
    api.down = True
    clock.now = 14.9
    await me.step()
    assert me.leading
    clock.now = 15.0
    await me.step()
    assert not me.leading
    api.down = False
    await me.step()
    assert told == [True, False, True]


async def test_a_leader_whose_lease_ran_out_between_two_renewals_is_told_that_it_did_not_lead() -> None:
    api, clock, told = FakeApi(), Clock(), list[bool]()
    me = election(api, clock, told)
    await me.step()
    clock.now = 15.0
    await me.step()
    assert me.leading
    assert told == [True, False, True]


async def test_two_never_lead_at_once_and_a_lease_given_back_is_taken_at_once() -> None:
    api, clock = FakeApi(), Clock()
    first, second = election(api, clock, [], "first"), election(api, clock, [], "second")
    await first.step()
    await second.step()
    assert (first.leading, second.leading) == (True, False)
    await first.release()
    await second.step()
    assert (first.leading, second.leading) == (False, True)


async def test_a_lease_taken_by_another_is_not_led_any_more() -> None:
    api, clock = FakeApi(), Clock()
    me = election(api, clock, [])
    await me.step()
    api.lease = lease("other")
    await me.step()
    assert not me.leading
