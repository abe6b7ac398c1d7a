"""Drains as state: who drains, who has agreed, and what may be released.

The barrier. A drain is over when

1. its mark is durable: whoever lists the pods from now on sees it and picks the endpoint no more,
2. the members were read after that: a replica that is not among them has listed the pods later still,

and for every member of that set of router replicas

3. the member has acknowledged this very mark (from then on it picks the endpoint no more),
4. the member reports nothing in flight at the endpoint,
5. nothing is unknown: no lease ran out there, no life of a replica that has ended may have given one,

and the settle time has passed since the last member acknowledged. No timer stands in for a member. Rules 1 and 2 ask
nothing of a replica that is known to be the only one.

A drain by deletion also ends at its deadline, or when nothing can run at the endpoint any more.

A word holds for good: a member that acknowledged a mark gives the endpoint no request while the mark stands, so that
its count only falls. Hence words may come late, twice, or in any order. A word for another mark is none, and never
replaces one for this: that drain may have been cancelled since. The mark of a deletion stands for every other, because
nothing cancels it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import DrainOutcome, DrainReason, DrainSpec, DrainStatus, Outcome, Release, Word

CUT_SECONDS = 2.0
"""How long after the deadline the doors have for cutting what is left, so that the figures are complete."""

IDLE_READ_SECONDS = 1.0
"""Two idle readings of an engine count as two only when they are this far apart."""


MARK_SECONDS = 1.0
"""How long a drain may go without a durable mark before one is asked for: a deletion mostly follows the gate's call."""

DELETION_KEY = "deletion"
GATE_PREFIX = "gate/"


class DrainKind(IntEnum):
    """What wants the drain. Several may at one time; the highest counts, only DELETION is absorbing."""

    PROVISIONAL = 0
    MANUAL = 1
    DELETION = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Who wants the drain, since when, until when. ``deadline`` None: it may take as long as it takes.

    ``generation`` orders the manual drains and resumes of one endpoint; ``incarnation`` is the one a gate spoke for.
    """

    kind: DrainKind
    reason: DrainReason
    started_at: float
    deadline: float | None = None
    generation: int = 0
    incarnation: str = ""

    @property
    def key(self) -> str:
        """The same for this mark at every member, and never again for another mark of the endpoint."""
        if self.kind is DrainKind.DELETION:
            return DELETION_KEY
        return f"manual/{self.generation}" if self.kind is DrainKind.MANUAL else f"{GATE_PREFIX}{self.incarnation}"


@dataclass(slots=True)
class Drain:
    """One endpoint's drain; it never leaves the core.

    ``marks``: who wants it; ``durable``: which of them have been seen on the pod, with the number of the members list
    that was asked for then. ``acked_at``: when each member acknowledged the mark that counts; ``words``: what the other
    members said last.
    """

    endpoint: Endpoint
    spec: DrainSpec
    marks: dict[DrainKind, Mark] = field(default_factory=dict)
    durable: dict[DrainKind, int] = field(default_factory=dict)
    acked_at: dict[str, float] = field(default_factory=dict)
    words: dict[str, Word] = field(default_factory=dict)
    in_flight_at_start: int = 0
    finished: int = 0
    lost: int = 0
    outcome: DrainOutcome | None = None
    ended_at: float = 0.0

    @property
    def mark(self) -> Mark:
        """The mark that counts."""
        return self.marks[max(self.marks)]

    def elsewhere(self, member: str) -> int:
        """Return what another member has in flight, as far as it said."""
        word = self.words.get(member)
        return word.in_flight if word is not None else 0

    def agrees(self, member: str) -> bool:
        """Whether another member's last word acknowledges the mark that counts."""
        word = self.words.get(member)
        return word is not None and self.acknowledged_by(word)

    def acknowledged_by(self, word: Word) -> bool:
        """Whether this word acknowledges the mark that counts."""
        return not word.marks.isdisjoint((DELETION_KEY, self.mark.key))

    def past_deadline(self, now: float) -> bool:
        """Whether time is up, if there is a deadline."""
        deadline = self.mark.deadline
        return deadline is not None and now >= deadline


_LOSSES = frozenset({Outcome.LOST, Outcome.CUT, Outcome.FAILED})
_OPEN_ENDED = frozenset({Outcome.REROUTED, Outcome.EXPIRED})
"""Neither finished nor lost here: rerouted attempts go on elsewhere, expired leases are unknown."""


class Drains:
    """Every drain of this registry, seen by the member named ``me``; ``members`` is the set that must agree.

    ``fixed``: the set is as told, because nobody else can join. Otherwise it is read from outside: ``wanted`` is the
    number of the newest list that some drain needs; a list answers all numbers that were asked for before its reading.
    """

    def __init__(self, me: str, *, fixed: bool = True) -> None:
        self.me = me
        self.fixed = fixed
        self.members: frozenset[str] = frozenset({me})
        self.wanted = 0 if fixed else 1
        self._answered = 0
        self._drains: dict[str, Drain] = {}
        self._resumed: dict[str, int] = {}

    def set_members(self, members: frozenset[str], answers: int = 0) -> None:
        """Take the set that must agree. What a member that left had in flight ended with it."""
        left = self.members - members
        self.members = members
        self._answered = max(self._answered, answers)
        for drain in self._drains.values():
            for member in left:
                drain.acked_at.pop(member, None)
                self._count(drain, lost=drain.elsewhere(member))
                drain.words.pop(member, None)

    def knows_idle(self, uid: str, members: frozenset[str]) -> bool:
        """Whether all these members said last that they drain the endpoint and have nothing there, nor unknown."""
        drain = self._drains.get(uid)
        return drain is not None and all(member in drain.acked_at and not drain.elsewhere(member) for member in members)

    def begin(self, endpoint: Endpoint, mark: Mark, spec: DrainSpec, now: float) -> bool:
        """Start a drain, or put one more mark on a running one. Return whether anything changed."""
        if mark.kind is DrainKind.MANUAL and mark.generation <= self._resumed.get(endpoint.uid, -1):
            return False
        drain = self._drains.get(endpoint.uid)
        if drain is None:
            drain = self._drains[endpoint.uid] = Drain(endpoint, spec, in_flight_at_start=endpoint.in_flight)
        elif not _is_news(drain, mark):
            return False
        self._put(drain, mark, now)
        endpoint.on(Event.DRAIN)
        return True

    def _put(self, drain: Drain, mark: Mark, now: float) -> None:
        """Put the mark on; when it is the one that counts now, ask everybody again."""
        drain.marks[mark.kind] = mark
        drain.durable.pop(mark.kind, None)
        if drain.mark is mark:
            self._start_over(drain, now)

    def _start_over(self, drain: Drain, now: float) -> None:
        """Ask everybody again. What was counted stands, unless that drain was over already."""
        agreed = {member: now for member in drain.words if drain.agrees(member)}
        drain.acked_at = {self.me: now} | agreed
        if drain.outcome is not None:
            drain.outcome = None
            drain.in_flight_at_start = self._in_flight(drain)
            drain.finished = drain.lost = 0

    def saw_mark(self, uid: str, mark: Mark) -> None:
        """Note that this mark has been seen on the pod: durable, so that every later list of pods shows it."""
        drain = self._drains.get(uid)
        known = drain.marks.get(mark.kind) if drain is not None else None
        if drain is not None and known is not None and known.key == mark.key and mark.kind not in drain.durable:
            self.wanted += not self.fixed
            drain.durable[mark.kind] = self.wanted

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

    def saw_no_cordon(self, uid: str) -> bool:
        """Follow the absence of a mark on the pod: a manual drain whose mark was there and is gone is cancelled.

        A pod without a mark starts anew: a mark that a person puts there by hand has no high generation.
        """
        self._resumed.pop(uid, None)
        drain = self._drains.get(uid)
        return drain is not None and DrainKind.MANUAL in drain.durable and self._cancel(drain, DrainKind.MANUAL)

    def saw_ready(self, uid: str, incarnation: str) -> bool:
        """End a provisional drain when the endpoint is ready in a new incarnation."""
        drain = self._drains.get(uid)
        mark = drain.marks.get(DrainKind.PROVISIONAL) if drain is not None else None
        if drain is None or mark is None or incarnation == mark.incarnation:
            return False
        return self._cancel(drain, DrainKind.PROVISIONAL)

    def _cancel(self, drain: Drain, kind: DrainKind) -> bool:
        counted = drain.mark
        del drain.marks[kind]
        drain.durable.pop(kind, None)
        if drain.marks:
            if drain.mark is not counted:
                self._start_over(drain, drain.acked_at[self.me])
            return False
        del self._drains[drain.endpoint.uid]
        drain.endpoint.idle_reads = 0
        return drain.endpoint.on(Event.UNDRAIN)

    def hear(self, member: str, uid: str, word: Word, now: float) -> bool:
        """Take another member's word about an endpoint that drains here."""
        drain = self._drains.get(uid)
        if drain is None or member == self.me:
            return False
        known = drain.words.get(member)
        if drain.acknowledged_by(word):
            drain.acked_at.setdefault(member, now)
        elif member in drain.acked_at:
            return False  # late: the word that acknowledged it stands, and so does its count
        drain.words[member] = word
        self._compare(drain, known, word, now)
        return word != known

    def _compare(self, drain: Drain, known: Word | None, word: Word, now: float) -> None:
        """Count what the member's word says of ends since its last one."""
        if known is None:
            self._count(drain, started=word.in_flight)
        elif drain.past_deadline(now):
            self._count(drain, lost=known.in_flight - word.in_flight)
        else:
            self._count(drain, finished=known.in_flight - word.in_flight)

    def key(self, uid: str) -> str | None:
        """Return the key of the mark that counts; None when the endpoint does not drain."""
        drain = self._drains.get(uid)
        return drain.mark.key if drain is not None else None

    def _in_flight(self, drain: Drain) -> int:
        """Return what is in flight at any member, as far as they reported."""
        return drain.endpoint.in_flight + sum(drain.elsewhere(member) for member in self.members)

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

    def words(self, now: float) -> dict[str, Word]:
        """Return what the other members must be told: each endpoint that drains, what for, and what is in flight.

        What is unknown counts as in flight: the others may not take this replica's ignorance for an end.
        """
        return {
            uid: Word(
                drain.endpoint.in_flight + drain.endpoint.unseen(now),
                frozenset(mark.key for mark in drain.marks.values()),
            )
            for uid, drain in self._drains.items()
        }

    def unmarked(self, now: float) -> list[tuple[str, Mark]]:
        """Return the drains, by uid, whose mark should be made durable; none of a deletion, which is."""
        return [
            (uid, drain.mark)
            for uid, drain in self._drains.items()
            if max(drain.marks) not in drain.durable and now >= drain.mark.started_at + MARK_SECONDS
        ]

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
            cut = drain.past_deadline(now) and (drain.lost or self._in_flight(drain))
            return DrainOutcome.DEADLINE if cut else DrainOutcome.ENDED
        return DrainOutcome.DEADLINE if self._time_is_up(drain, now) else None

    def _nothing_left(self, drain: Drain, now: float) -> bool:
        """Whether the barrier holds but for the settle time."""
        everybody = self._members_known(drain) and self._all_know(drain)
        return everybody and not self._in_flight(drain) and not drain.endpoint.blind(now)

    def _members_known(self, drain: Drain) -> bool:
        """Whether the members were read since the mark that counts is durable."""
        asked = drain.durable.get(drain.mark.kind)
        return self.fixed or (asked is not None and asked <= self._answered)

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

    def is_past_deadline(self, uid: str, now: float) -> bool:
        """Whether the endpoint drains and its time is up."""
        drain = self._drains.get(uid)
        return drain is not None and drain.past_deadline(now)

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
            waiting_for=self._waiting_for(drain),
        )

    def _waiting_for(self, drain: Drain) -> tuple[str, ...]:
        if drain.outcome is not None:
            return ()
        silent = (m for m in self.members - {self.me} if m not in drain.acked_at or drain.elsewhere(m))
        return tuple(sorted(silent))

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
