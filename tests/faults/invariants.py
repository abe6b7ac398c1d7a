"""What must be true of every history, whatever was broken meanwhile. Pure: a history in, sentences out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from tests.faults.history import (
    OURS,
    Acknowledged,
    Arrived,
    Away,
    Begun,
    Ended,
    History,
    PodGone,
    Sampled,
    Unfinalized,
)

RELEASE_SECONDS = 10.0
"""After the deadline, or after somebody could write again."""

CLOSE_SECONDS = 0.25
"""Between the last byte and the engine's own note of the end, on a busy machine."""

Violations = list[str]
Invariant = Callable[[History], Violations]


def no_pick_after_an_acknowledged_drain(history: History) -> Violations:
    """Find requests that began after a drain was acknowledged and went to that pod all the same."""
    begun = {one.request: one.at for one in history.of(Begun)}
    acknowledged: dict[str, float] = {}
    for one in history.of(Acknowledged):
        acknowledged.setdefault(one.uid, one.at)
    found = []
    for arrived in history.of(Arrived):
        uid = history.holder(arrived.endpoint, arrived.at)
        since = acknowledged.get(uid or "", float("inf"))
        if begun.get(arrived.request, arrived.at) > since:
            found.append(f"request {arrived.request} began after the drain of {uid} was acknowledged, and went there")
    return found


def a_finalizer_goes_at_zero_or_at_the_deadline(history: History) -> Violations:
    """Find finalizers that went before the deadline, while a request was at the pod."""
    found = []
    for gone in history.of(Unfinalized):
        deadline = history.deadline(gone.uid)
        late = deadline is not None and gone.at >= deadline
        if OURS in gone.finalizers and not late:
            found += [
                f"the finalizer of {gone.uid} went while request {stay.request} was there"
                for stay in history.stays()
                if history.holder(stay.endpoint, stay.since) == gone.uid
                and stay.since < gone.at < stay.until - CLOSE_SECONDS
            ]
    return found


def every_request_ends_once(history: History) -> Violations:
    """Find requests without exactly one beginning and one end."""
    begun = Counter(one.request for one in history.of(Begun))
    ended = Counter(one.request for one in history.of(Ended))
    return [
        f"request {request} began {begun[request]} times and ended {ended[request]} times"
        for request in sorted(begun | ended)
        if (begun[request], ended[request]) != (1, 1)
    ]


def a_terminating_pod_is_released_in_time(history: History) -> Violations:
    """Find pods with our finalizer 10 s after the deadline, or after the last time when nobody could write."""
    end = max((one.at for one in history.happenings), default=0.0)
    found = []
    for uid in history.pods():
        deadline = history.deadline(uid)
        if deadline is not None:
            due = max([deadline, *_outages_over(history, deadline)]) + RELEASE_SECONDS
            at = _released_at(history, uid)
            if (at if at is not None else end) > due:
                found.append(f"pod {uid} should have been released at {due:.1f} and was at {at or 'no time'}")
    return found


def _outages_over(history: History, deadline: float) -> Iterable[float]:
    return (away.until for away in history.of(Away) if away.at <= deadline + RELEASE_SECONDS)


def _released_at(history: History, uid: str) -> float | None:
    free = [seen.at for seen in history.pods()[uid] if seen.deadline is not None and OURS not in seen.finalizers]
    gone = [one.at for one in history.of(PodGone) if one.uid == uid]
    return min([*free, *gone], default=None)


def in_the_end_the_doors_know_the_ready_pods(history: History) -> Violations:
    """Compare the last sample with the pods that are ready, by uid; nothing may be in flight."""
    gone = {one.uid for one in history.of(PodGone)}
    last = {uid: seen[-1] for uid, seen in history.pods().items() if uid not in gone}
    ready = {uid for uid, pod in last.items() if pod.ready and pod.deadline is None}
    samples = history.of(Sampled)
    known = samples[-1].ready if samples else frozenset()
    found = [f"pod {uid} is ready and gets no requests" for uid in sorted(ready - known)]
    found += [f"pod {uid} gets requests and is not ready" for uid in sorted(known - ready)]
    if samples and samples[-1].in_flight:
        found.append(f"{samples[-1].in_flight} requests are in flight after all have ended")
    return found


def no_pool_empties_while_pods_are_ready(history: History) -> Violations:
    """Find samples without any endpoint while a pod that was one before has been ready all the time."""
    found: Violations = []
    had: set[str] = set()
    for sample in history.of(Sampled):
        if not sample.ready:
            kept = [uid for uid in sorted(had) if _ready_all_the_time(history, uid, sample.at)]
            if kept:
                found.append(f"at {sample.at:.1f} no endpoint was left, though {kept[0]} was ready")
        had |= sample.ready
    return found


def _ready_all_the_time(history: History, uid: str, until: float) -> bool:
    seen = [one for one in history.pods().get(uid, ()) if one.at <= until]
    gone = any(one.uid == uid and one.at <= until for one in history.of(PodGone))
    first = next((index for index, one in enumerate(seen) if one.ready), None)
    return first is not None and not gone and all(one.ready and one.deadline is None for one in seen[first:])


def foreign_finalizers_stay(history: History) -> Violations:
    """Find finalizers that the operator took off and that are not its own."""
    return [
        f"the operator took {finalizer} off {gone.uid}"
        for gone in history.of(Unfinalized)
        for finalizer in gone.finalizers
        if finalizer != OURS
    ]


INVARIANTS: tuple[Invariant, ...] = (
    no_pick_after_an_acknowledged_drain,
    a_finalizer_goes_at_zero_or_at_the_deadline,
    every_request_ends_once,
    a_terminating_pod_is_released_in_time,
    in_the_end_the_doors_know_the_ready_pods,
    no_pool_empties_while_pods_are_ready,
    foreign_finalizers_stay,
)


def violations(history: History) -> Violations:
    """Return everything that is wrong with a history."""
    return [f"{check.__name__}: {sentence}" for check in INVARIANTS for sentence in check(history)]
