"""Drains as state: who drains, who has agreed, and what may be released.

The barrier. A drain is over when, for every member of the set of router replicas,

1. the member has acknowledged the drain (from then on it picks the endpoint no more),
2. the member reports nothing in flight at the endpoint,
3. nothing is unknown: no lease ran out there, no life of a replica that has ended may have given one,

and the settle time has passed since the last member acknowledged. No timer stands in for a member.

A drain by deletion also ends at its deadline, or when nothing can run at the endpoint any more. It wants its own
acknowledgements: a member that agreed to an earlier drain of the endpoint may have cancelled that one since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import DrainOutcome, DrainReason, DrainSpec, DrainStatus, Outcome, Release

CUT_SECONDS = 2.0
"""How long after the deadline the doors have for cutting what is left, so that the figures are complete."""

IDLE_READ_SECONDS = 1.0
"""Two idle readings of an engine count as two only when they are this far apart."""


class DrainKind(IntEnum):
    """What wants the drain. Several may at one time; the highest gives the reason, only DELETION is absorbing."""

    PROVISIONAL = 0
    MANUAL = 1
    DELETION = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Who wants the drain, since when, until when. ``deadline`` None: it may take as long as it takes.

    ``generation`` orders the manual drains and resumes of one endpoint.
    """

    kind: DrainKind
    reason: DrainReason
    started_at: float
    deadline: float | None = None
    generation: int = 0


@dataclass(slots=True)
class Drain:
    """One endpoint's drain; it never leaves the core.

    ``marks``: who wants it. ``acked_at``: when each member acknowledged it; ``elsewhere``: what the other members have
    in flight. ``incarnation``: which one the gate spoke for. ``durable``: the manual mark has been seen on the pod.
    """

    endpoint: Endpoint
    spec: DrainSpec
    marks: dict[DrainKind, Mark] = field(default_factory=dict)
    incarnation: str = ""
    durable: bool = False
    acked_at: dict[str, float] = field(default_factory=dict)
    elsewhere: dict[str, int] = field(default_factory=dict)
    in_flight_at_start: int = 0
    finished: int = 0
    lost: int = 0
    outcome: DrainOutcome | None = None
    ended_at: float = 0.0

    @property
    def mark(self) -> Mark:
        """The mark that counts."""
        return self.marks[max(self.marks)]

    def past_deadline(self, now: float) -> bool:
        """Whether time is up, if there is a deadline."""
        deadline = self.mark.deadline
        return deadline is not None and now >= deadline


_LOSSES = frozenset({Outcome.LOST, Outcome.CUT})
_OPEN_ENDED = frozenset({Outcome.REROUTED, Outcome.EXPIRED})
"""Neither finished nor lost here: rerouted attempts go on elsewhere, expired leases are unknown."""


class Drains:
    """Every drain of this registry, seen by the member named ``me``; ``members`` is the set that must agree."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.members: frozenset[str] = frozenset({me})
        self._drains: dict[str, Drain] = {}
        self._resumed: dict[str, int] = {}

    def set_members(self, members: frozenset[str]) -> None:
        """Take the set that must agree. What a member that left had in flight ended with it."""
        left = self.members - members
        self.members = members
        for drain in self._drains.values():
            for member in left:
                drain.acked_at.pop(member, None)
                self._count(drain, lost=drain.elsewhere.pop(member, 0))

    def knows_idle(self, uid: str, members: frozenset[str]) -> bool:
        """Whether all these members said last that they drain the endpoint and have nothing there, nor unknown."""
        drain = self._drains.get(uid)
        return drain is not None and all(
            member in drain.acked_at and not drain.elsewhere.get(member, 0) for member in members
        )

    def begin(self, endpoint: Endpoint, mark: Mark, spec: DrainSpec, incarnation: str, now: float) -> bool:
        """Start a drain, or put one more mark on a running one. Return whether anything changed."""
        if mark.kind is DrainKind.MANUAL and mark.generation <= self._resumed.get(endpoint.uid, -1):
            return False
        drain = self._drains.get(endpoint.uid)
        if drain is None:
            drain = self._drains[endpoint.uid] = Drain(endpoint, spec, in_flight_at_start=endpoint.in_flight)
            drain.acked_at[self.me] = now
        elif not _is_news(drain, mark):
            return False
        elif mark.kind is DrainKind.DELETION:
            self._start_over(drain, now)
        drain.marks[mark.kind] = mark
        if mark.kind is DrainKind.PROVISIONAL:
            drain.incarnation = incarnation
        endpoint.on(Event.DRAIN)
        return True

    def _start_over(self, drain: Drain, now: float) -> None:
        """Ask everybody again. What was counted stands, unless that drain was over already."""
        drain.acked_at = {self.me: now}
        if drain.outcome is not None:
            drain.outcome = None
            drain.in_flight_at_start = self._in_flight(drain)
            drain.finished = drain.lost = 0

    def resume(self, uid: str, generation: int) -> bool:
        """Cancel a manual drain, and those of no higher generation that are still to come.

        A generation below the drain's own is old news. Return whether the endpoint drains no more.
        """
        self._resumed[uid] = max(generation, self._resumed.get(uid, generation))
        drain = self._drains.get(uid)
        mark = drain.marks.get(DrainKind.MANUAL) if drain is not None else None
        if drain is None or mark is None or generation < mark.generation:
            return False
        return self._cancel(drain, DrainKind.MANUAL)

    def saw_cordon(self, uid: str, *, cordoned: bool) -> bool:
        """Follow the mark on the pod: a manual drain whose mark was there and is gone is cancelled.

        A pod without a mark starts anew: a mark that a person puts there by hand has no high generation.
        """
        if not cordoned:
            self._resumed.pop(uid, None)
        drain = self._drains.get(uid)
        if drain is None or DrainKind.MANUAL not in drain.marks:
            return False
        if cordoned or not drain.durable:
            drain.durable = cordoned
            return False
        return self._cancel(drain, DrainKind.MANUAL)

    def saw_ready(self, uid: str, incarnation: str) -> bool:
        """End a provisional drain when the endpoint is ready in a new incarnation."""
        drain = self._drains.get(uid)
        if drain is None or DrainKind.PROVISIONAL not in drain.marks or incarnation == drain.incarnation:
            return False
        return self._cancel(drain, DrainKind.PROVISIONAL)

    def _cancel(self, drain: Drain, kind: DrainKind) -> bool:
        del drain.marks[kind]
        drain.durable = drain.durable and kind is not DrainKind.MANUAL
        if drain.marks:
            return False
        del self._drains[drain.endpoint.uid]
        drain.endpoint.idle_reads = 0
        return drain.endpoint.on(Event.UNDRAIN)

    def ack(self, member: str, uid: str, in_flight: int, now: float) -> bool:
        """Note that another member knows of the drain and how much it has in flight there."""
        drain = self._drains.get(uid)
        if drain is None or member == self.me:
            return False
        known = drain.elsewhere.get(member)
        drain.acked_at.setdefault(member, now)
        drain.elsewhere[member] = in_flight
        if known is None:
            self._count(drain, started=in_flight)
        elif drain.past_deadline(now):
            self._count(drain, lost=known - in_flight)
        else:
            self._count(drain, finished=known - in_flight)
        return True

    def _in_flight(self, drain: Drain) -> int:
        """Return what is in flight at any member, as far as they reported."""
        return drain.endpoint.in_flight + sum(drain.elsewhere.get(member, 0) for member in self.members)

    def ended(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Book the end of an attempt at the endpoint in the figures of its drain."""
        drain = self._drains.get(endpoint.uid)
        if drain is not None and outcome not in _OPEN_ENDED:
            lost = outcome in _LOSSES
            self._count(drain, lost=int(lost), finished=int(not lost))

    def _count(self, drain: Drain, *, started: int = 0, finished: int = 0, lost: int = 0) -> None:
        if drain.outcome is None:
            drain.in_flight_at_start += started
            drain.finished += max(0, finished)
            drain.lost += max(0, lost)

    def engine_read(self, uid: str, *, idle: bool, now: float) -> bool:
        """Note what the engine's own gauges said; two idle readings settle what is unknown. Return whether they did.

        A reading counts only while this replica itself has nothing in flight there: before that it says nothing
        about the requests nobody sees.
        """
        drain = self._drains.get(uid)
        if drain is None:
            return False
        endpoint = drain.endpoint
        if not idle or endpoint.in_flight:
            endpoint.idle_reads = 0
            return False
        if endpoint.idle_reads and now < endpoint.idle_read_at + IDLE_READ_SECONDS:
            return False
        endpoint.idle_reads += 1
        endpoint.idle_read_at = now
        if endpoint.idle_reads < 2:
            return False
        endpoint.trust()
        return True

    def questions(self, now: float) -> frozenset[str]:
        """Return the uids whose engine should be asked whether it is idle: only it can settle what is unknown."""
        return frozenset(
            uid
            for uid, drain in self._drains.items()
            if drain.outcome is None and drain.endpoint.in_flight == 0 and drain.endpoint.blind(now)
        )

    def reports(self, now: float) -> dict[str, int]:
        """Return what the other members must be told: each endpoint that drains, and what is in flight there.

        What is unknown counts as in flight: the others may not take this replica's ignorance for an end.
        """
        return {uid: drain.endpoint.in_flight + drain.endpoint.unseen(now) for uid, drain in self._drains.items()}

    def advance(self, now: float, ended: Callable[[str], bool]) -> bool:
        """End the drains that are over, and return whether any did; ``ended``: nothing can run at that uid."""
        changed = False
        for uid, drain in self._drains.items():
            if drain.outcome is None:
                outcome = self._outcome(drain, now, ended=ended(uid))
                if outcome is not None:
                    self._finish(drain, outcome, now)
                    changed = True
        return changed

    def _outcome(self, drain: Drain, now: float, *, ended: bool) -> DrainOutcome | None:
        nothing_left = self._nothing_left(drain, now)
        if nothing_left and now >= self._settled_at(drain):
            return DrainOutcome.DEADLINE if drain.lost and drain.past_deadline(now) else DrainOutcome.DRAINED
        if drain.mark.kind is not DrainKind.DELETION:
            return None
        if ended or (nothing_left and not drain.endpoint.was_ready):
            return DrainOutcome.ENDED
        return DrainOutcome.DEADLINE if self._time_is_up(drain, now) else None

    def _nothing_left(self, drain: Drain, now: float) -> bool:
        """Whether the barrier holds but for the settle time."""
        return self._all_know(drain) and not self._in_flight(drain) and not drain.endpoint.blind(now)

    def _time_is_up(self, drain: Drain, now: float) -> bool:
        """Whether the deadline has passed, and the doors had their time to cut what was left."""
        late = not self._in_flight(drain) or drain.past_deadline(now - CUT_SECONDS)
        return late and drain.past_deadline(now)

    def _finish(self, drain: Drain, outcome: DrainOutcome, now: float) -> None:
        self._count(drain, lost=self._in_flight(drain))
        drain.outcome = outcome
        drain.ended_at = now
        drain.endpoint.on(Event.DRAIN_OVER)

    def _all_know(self, drain: Drain) -> bool:
        return all(member in drain.acked_at for member in self.members)

    def _settled_at(self, drain: Drain) -> float:
        return max(drain.acked_at[member] for member in self.members) + drain.spec.settle

    def releasable(self) -> list[Release]:
        """Return the drains by deletion that are over, as told by the last ``advance``."""
        return [
            _release(drain, drain.outcome)
            for drain in self._drains.values()
            if drain.outcome is not None and drain.mark.kind is DrainKind.DELETION
        ]

    def past_deadline(self, now: float) -> list[Endpoint]:
        """Return the endpoints that have attempts which must be cut now."""
        return [d.endpoint for d in self._drains.values() if d.endpoint.in_flight and d.past_deadline(now)]

    def next_deadline(self, now: float) -> float | None:
        """Return when ``advance`` or ``past_deadline`` may next change their answer by the clock alone."""
        times = [at for drain in self._drains.values() if drain.outcome is None for at in self._times(drain)]
        return min((at for at in times if at > now), default=None)

    def _times(self, drain: Drain) -> list[float]:
        times = [drain.endpoint.blind_until]
        if self._all_know(drain):
            times.append(self._settled_at(drain))
        if drain.mark.deadline is not None:
            times += [drain.mark.deadline, drain.mark.deadline + CUT_SECONDS]
        return times

    def forget(self, uid: str) -> None:
        """Drop what is known of an endpoint that is gone."""
        self._drains.pop(uid, None)
        self._resumed.pop(uid, None)

    def status(self, endpoint: Endpoint) -> DrainStatus:
        """Return how the endpoint's drain stands; counts include what other members reported."""
        drain = self._drains.get(endpoint.uid)
        if drain is None:
            return DrainStatus(endpoint.uid, endpoint.state, endpoint.in_flight, False, None, None)
        return DrainStatus(
            uid=endpoint.uid,
            state=endpoint.state,
            in_flight=self._in_flight(drain),
            safe_to_delete=drain.outcome is not None,
            deadline=drain.mark.deadline,
            reason=drain.mark.reason,
        )

    def __len__(self) -> int:
        return sum(drain.outcome is None for drain in self._drains.values())


def _is_news(drain: Drain, mark: Mark) -> bool:
    known = drain.marks.get(mark.kind)
    return known is None or mark.generation > known.generation


def _release(drain: Drain, outcome: DrainOutcome) -> Release:
    return Release(
        uid=drain.endpoint.uid,
        reason=drain.mark.reason,
        outcome=outcome,
        started_at=drain.mark.started_at,
        ended_at=drain.ended_at,
        in_flight_at_start=drain.in_flight_at_start,
        finished=drain.finished,
        lost=drain.lost,
    )
