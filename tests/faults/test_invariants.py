"""Each invariant passes a good history and fails a bad one: a checker that cannot fail proves nothing."""

from __future__ import annotations

import pytest
from tests.faults import invariants
from tests.faults.history import (
    OURS,
    Acknowledged,
    Arrived,
    Away,
    Begun,
    Ended,
    Happening,
    History,
    Left,
    PodGone,
    PodSeen,
    PowerLost,
    Sampled,
    Unfinalized,
)
from tests.faults.invariants import INVARIANTS, Invariant, violations

OLD, NEW = "127.2.0.2:8000", "127.2.0.3:8000"
FOREIGN = "example.com/keep"
GOOD: tuple[Happening, ...] = (
    PodSeen(0, "a", "alpha-a", OLD, ready=True, finalizers=(OURS,)),
    PodSeen(0, "b", "alpha-b", NEW, ready=True, finalizers=(OURS,)),
    Sampled(1, {"a": "ready", "b": "ready"}),
    Begun(1, "one"),
    Arrived(1.1, "one", OLD),
    PodSeen(2, "a", "alpha-a", OLD, ready=False, finalizers=(FOREIGN, OURS), deadline=32),
    Sampled(2.1, {"a": "draining", "b": "ready"}, in_flight=1),
    Acknowledged(2.1, "a"),
    Begun(3, "two"),
    Arrived(3.1, "two", NEW),
    Left(5, "one", OLD),
    Left(5, "two", NEW),
    Ended(5.1, "one", complete=True, endpoint=OLD),
    Ended(5.1, "two", complete=True, endpoint=NEW),
    Unfinalized(6, "a", (OURS,)),
    PodSeen(6.1, "a", "alpha-a", OLD, ready=False, finalizers=(FOREIGN,), deadline=32),
    PodGone(7, "a"),
    Sampled(8, {"b": "ready"}),
)
STUCK = tuple(one for one in GOOD if not isinstance(one, Unfinalized | PodGone) and one.at != 6.1)
LATE = Sampled(43, {"b": "ready"})


def test_a_good_history_violates_nothing() -> None:
    assert violations(History(list(GOOD))) == []


BAD: dict[str, tuple[Invariant, tuple[Happening, ...]]] = {
    "a pick after the drain was acknowledged": (
        invariants.no_pick_after_an_acknowledged_drain,
        (*GOOD, Begun(2.5, "late"), Arrived(2.6, "late", OLD), Ended(2.7, "late", complete=True)),
    ),
    "a finalizer that goes while a request is there": (
        invariants.a_finalizer_goes_at_zero_or_at_the_deadline,
        (*GOOD, Begun(1, "long"), Arrived(1.1, "long", OLD), Ended(9, "long", complete=True)),
    ),
    "a request that never ends": (invariants.every_request_ends_once, (*GOOD, Begun(3, "open"))),
    "a request that ends twice": (invariants.every_request_ends_once, (*GOOD, Ended(6, "one", complete=True))),
    "an end without a request": (invariants.every_request_ends_once, (*GOOD, Ended(6, "who", complete=True))),
    "a pod that is not released in time": (invariants.a_terminating_pod_is_released_in_time, (*STUCK, LATE)),
    "a pod released too late after an outage": (
        invariants.a_terminating_pod_is_released_in_time,
        (*STUCK, Away(20, 50), Sampled(61, {"b": "ready"})),
    ),
    "a ready pod that the doors do not know": (
        invariants.in_the_end_the_doors_know_the_ready_pods,
        (*GOOD, PodSeen(7, "c", "alpha-c", OLD, ready=True)),
    ),
    "an endpoint that is no pod any more": (
        invariants.in_the_end_the_doors_know_the_ready_pods,
        (*GOOD, Sampled(9, {"a": "ready", "b": "ready"})),
    ),
    "an attempt that is never booked out": (
        invariants.in_the_end_the_doors_know_the_ready_pods,
        (*GOOD, Sampled(9, {"b": "ready"}, in_flight=1)),
    ),
    "a pool that is empty while a pod is ready": (
        invariants.no_pool_empties_while_pods_are_ready,
        (*GOOD, Sampled(4, {})),
    ),
    "a foreign finalizer that the operator takes off": (
        invariants.foreign_finalizers_stay,
        (*GOOD, Unfinalized(6, "a", (FOREIGN,))),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_the_checker_sees(case: str) -> None:
    invariant, happenings = BAD[case]
    assert invariant(History(list(happenings))), case


def test_every_invariant_is_shown_to_fail() -> None:
    assert {invariant for invariant, _ in BAD.values()} == set(INVARIANTS)


FINE: dict[str, tuple[Happening, ...]] = {
    "a pod that had to wait for the API server": (*STUCK, Away(30, 40), LATE),
    "an address that another pod has now": (
        *GOOD,
        PodSeen(7.5, "c", "alpha-c", OLD, ready=True),
        Begun(8, "new"),
        Arrived(8.1, "new", OLD),
        Left(8.2, "new", OLD),
        Ended(8.3, "new", complete=True),
        Sampled(9, {"b": "ready", "c": "ready"}),
    ),
    "a request that was sent elsewhere when its pod died": (
        *GOOD,
        Begun(1, "moved"),
        Arrived(1.1, "moved", OLD),
        Arrived(2.2, "moved", NEW),
        Left(8.2, "moved", NEW),
        Ended(8.3, "moved", complete=True),
    ),
    "a request whose engine lost its power": (
        *GOOD,
        Begun(1, "cut"),
        Arrived(1.1, "cut", OLD),
        PowerLost(4),
        Ended(8.3, "cut", complete=False),
    ),
    "a finalizer that goes at the deadline": (
        *STUCK,
        Begun(1, "cut"),
        Arrived(1.1, "cut", OLD),
        Unfinalized(34, "a", (OURS,)),
        PodGone(34, "a"),
        Left(34.5, "cut", OLD),
        Ended(34.5, "cut", complete=False),
    ),
    "a pool that is empty because its last pod is not ready": (
        *GOOD,
        PodSeen(9, "b", "alpha-b", NEW, ready=False, finalizers=(OURS,)),
        Sampled(10, {"b": "starting"}),
    ),
}


@pytest.mark.parametrize("case", FINE)
def test_the_checker_allows(case: str) -> None:
    assert violations(History(list(FINE[case]))) == [], case
