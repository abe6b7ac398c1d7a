"""Drains as state: who drains, who has agreed, and what may be released.

The barrier. A drain is over when, for every member of the set of router replicas,

1. the member has acknowledged the drain (from then on it picks the endpoint no more),
2. the member reports nothing in flight at the endpoint,
3. nothing is unknown: no lease ran out there, no earlier life of a replica may have given one,

and the settle time has passed since the last member acknowledged. No timer stands in for a member.

A drain by deletion also ends at its deadline, or when nothing can run at the endpoint any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import DrainOutcome, DrainReason, DrainSpec, DrainStatus, EndpointState, Outcome, Release

CUT_SECONDS = 2.0
"""How long after the deadline the doors have for cutting what is left, so that the figures are complete."""

IDLE_READ_SECONDS = 1.0
"""Two idle readings of an engine count as two only when they are this far apart."""


class DrainKind(IntEnum):
    """What started the drain. A higher kind takes a lower one over; only DELETION is absorbing."""

    PROVISIONAL = 0
    MANUAL = 1
    DELETION = 2


@dataclass(slots=True)
class Ack:
    """A member's word: when it first acknowledged the drain, and what it has in flight there."""

    at: float
    in_flight: int


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
    """One endpoint's drain; it never leaves the core. ``durable``: its mark has been seen on the pod itself."""

    endpoint: Endpoint
    mark: Mark
    spec: DrainSpec
    incarnation: str
    in_flight_at_start: int = 0
    finished: int = 0
    lost: int = 0
    durable: bool = False
    acks: dict[str, Ack] = field(default_factory=dict)
    outcome: DrainOutcome | None = None
    ended_at: float = 0.0


_LOSSES = frozenset({Outcome.LOST, Outcome.CUT})
_OPEN_ENDED = frozenset({Outcome.REROUTED, Outcome.EXPIRED})
"""Neither finished nor lost here: rerouted attempts go on elsewhere, expired leases are unknown."""


class Drains:
    """Every drain of this registry, seen by the member named ``me``; ``members`` is the set that must agree."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.members: frozenset[str] = frozenset({me})
        self._drains: dict[str, Drain] = {}

    def get(self, uid: str) -> Drain | None:
        """Return the endpoint's drain, running or over."""
        return self._drains.get(uid)

    def begin(self, endpoint: Endpoint, mark: Mark, spec: DrainSpec, incarnation: str, now: float) -> bool:
        """Start a drain, or raise a running one to a higher kind. Return whether anything changed."""
        drain = self._drains.get(endpoint.uid)
        if drain is not None:
            return _raise(drain, mark)
        drain = Drain(endpoint, mark, spec, incarnation, in_flight_at_start=endpoint.in_flight)
        drain.acks[self.me] = Ack(now, endpoint.in_flight)
        self._drains[endpoint.uid] = drain
        endpoint.on(Event.DRAIN)
        return True

    def resume(self, uid: str, generation: int) -> bool:
        """Cancel a manual drain; a generation below the drain's own is old news and does nothing."""
        drain = self._drains.get(uid)
        if drain is None or drain.mark.kind is not DrainKind.MANUAL or generation < drain.mark.generation:
            return False
        return self._cancel(drain)

    def saw_cordon(self, uid: str, *, cordoned: bool) -> bool:
        """Follow the mark on the pod: a manual drain whose mark was there and is gone is cancelled."""
        drain = self._drains.get(uid)
        if drain is None or drain.mark.kind is not DrainKind.MANUAL:
            return False
        if cordoned or not drain.durable:
            drain.durable = cordoned
            return False
        return self._cancel(drain)

    def saw_ready(self, uid: str, incarnation: str) -> bool:
        """End a provisional drain when the endpoint is ready in a new incarnation."""
        drain = self._drains.get(uid)
        if drain is None or drain.mark.kind is not DrainKind.PROVISIONAL or incarnation == drain.incarnation:
            return False
        return self._cancel(drain)

    def _cancel(self, drain: Drain) -> bool:
        del self._drains[drain.endpoint.uid]
        drain.endpoint.idle_reads = 0
        return drain.endpoint.on(Event.UNDRAIN)

    def ack(self, member: str, uid: str, in_flight: int, now: float) -> bool:
        """Note that another member knows of the drain and how much it has in flight there."""
        drain = self._drains.get(uid)
        if drain is None or member == self.me:
            return False
        known = drain.acks.get(member)
        drain.acks[member] = Ack(now if known is None else known.at, in_flight)
        return True

    def ended(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Book the end of an attempt at the endpoint in the figures of its drain."""
        drain = self._drains.get(endpoint.uid)
        if drain is None or drain.outcome is not None:
            return
        if outcome in _LOSSES:
            drain.lost += 1
        elif outcome not in _OPEN_ENDED:
            drain.finished += 1

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
        if self._barrier_holds(drain, now):
            return DrainOutcome.DRAINED
        if drain.mark.kind is not DrainKind.DELETION:
            return None
        if ended or _never_routable(drain.endpoint, now):
            return DrainOutcome.ENDED
        return DrainOutcome.DEADLINE if _time_is_up(drain, now) else None

    def _barrier_holds(self, drain: Drain, now: float) -> bool:
        if drain.endpoint.in_flight or drain.endpoint.blind(now):
            return False
        if any(member not in drain.acks for member in self.members):
            return False
        others = (drain.acks[member] for member in self.members if member != self.me)
        return all(ack.in_flight == 0 for ack in others) and now >= self._settled_at(drain)

    def _settled_at(self, drain: Drain) -> float:
        return max(drain.acks[member].at for member in self.members) + drain.spec.settle

    def _finish(self, drain: Drain, outcome: DrainOutcome, now: float) -> None:
        drain.outcome = outcome
        drain.ended_at = now
        drain.lost += drain.endpoint.in_flight
        drain.endpoint.on(Event.DRAIN_OVER)

    def releasable(self) -> list[Release]:
        """Return the drains by deletion that are over, as told by the last ``advance``."""
        return [
            _release(drain)
            for drain in self._drains.values()
            if drain.outcome and drain.mark.kind is DrainKind.DELETION
        ]

    def past_deadline(self, now: float) -> list[Endpoint]:
        """Return the endpoints whose attempts must be cut now."""
        return [d.endpoint for d in self._drains.values() if d.mark.deadline is not None and now >= d.mark.deadline]

    def next_deadline(self, now: float) -> float | None:
        """Return when ``advance`` or ``past_deadline`` may next change their answer by the clock alone."""
        times = [at for drain in self._drains.values() if drain.outcome is None for at in self._times(drain)]
        return min((at for at in times if at > now), default=None)

    def _times(self, drain: Drain) -> list[float]:
        times = [drain.endpoint.blind_until]
        if all(member in drain.acks for member in self.members):
            times.append(self._settled_at(drain))
        if drain.mark.deadline is not None:
            times += [drain.mark.deadline, drain.mark.deadline + CUT_SECONDS]
        return times

    def forget(self, uid: str) -> None:
        """Drop the drain of an endpoint that is gone."""
        self._drains.pop(uid, None)

    def status(self, endpoint: Endpoint) -> DrainStatus:
        """Return how the endpoint's drain stands; counts include what other members reported."""
        drain = self._drains.get(endpoint.uid)
        if drain is None:
            gone = endpoint.state is EndpointState.GONE
            return DrainStatus(endpoint.uid, endpoint.state, endpoint.in_flight, gone, None, None)
        others = sum(ack.in_flight for member, ack in drain.acks.items() if member != self.me)
        return DrainStatus(
            uid=endpoint.uid,
            state=endpoint.state,
            in_flight=endpoint.in_flight + others,
            safe_to_delete=drain.outcome is not None,
            deadline=drain.mark.deadline,
            reason=drain.mark.reason,
        )

    def __len__(self) -> int:
        return sum(drain.outcome is None for drain in self._drains.values())


def _raise(drain: Drain, mark: Mark) -> bool:
    if (mark.kind, mark.generation) <= (drain.mark.kind, drain.mark.generation):
        return False
    drain.mark = mark
    return True


def _never_routable(endpoint: Endpoint, now: float) -> bool:
    return not endpoint.was_ready and endpoint.in_flight == 0 and not endpoint.blind(now)


def _time_is_up(drain: Drain, now: float) -> bool:
    if drain.mark.deadline is None or now < drain.mark.deadline:
        return False
    return drain.endpoint.in_flight == 0 or now >= drain.mark.deadline + CUT_SECONDS


def _release(drain: Drain) -> Release:
    return Release(
        uid=drain.endpoint.uid,
        reason=drain.mark.reason,
        outcome=drain.outcome or DrainOutcome.ENDED,
        started_at=drain.mark.started_at,
        ended_at=drain.ended_at,
        in_flight_at_start=drain.in_flight_at_start,
        finished=drain.finished,
        lost=drain.lost,
    )
