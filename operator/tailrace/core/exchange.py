"""One request's life without I/O: pick, relay, retry, terminate. Every transport drives this same machine.

Rules:

1. Nothing is retried once a byte of the answer has reached the client.
2. A pooled connection that the engine had closed is no fault of the endpoint: the same attempt is sent again, once,
   unless the endpoint gets no requests by now.
3. Other failures before the first byte go to another endpoint while there is one, ``MAX_ATTEMPTS`` in all; where no
   connection could be made nothing was sent, and ``MAX_UNREACHABLE`` of those may come besides. An engine that is only
   late is not: it has the request already, and a second one would add to its load.
4. An engine that answers that it can take no more now (``DECLINES``) counts as a failure before the first byte, while
   there is another endpoint. Where there is none its answer is the answer, for it may say when to come back.
5. At the drain deadline an attempt without a byte sent is re-routed; a stream is ended with a terminal error, which
   is the same when the engine, told to stop then, breaks it off first.
6. When the router itself stops, what is in flight ends with an error of its own and is tried nowhere else: a request
   that its last moments sent to one endpoint after the other would be work for all of them and an answer for nobody.
7. Where all that qualify are full, a patient request waits for its turn; also one that was sent already and has to go
   elsewhere, at most until its whole time is up. Nothing is in flight for it meanwhile.
8. Every attempt is released exactly once, with the outcome that its door saw; it was re-routed only if there was
   another endpoint for it.

A transport calls ``start``; then for each ``Forward`` exactly one of ``failed``, ``cut``, ``stopped``, ``client_gone``
or ``completed``, with ``first_byte`` before it when one came; for each ``Wait`` exactly one of ``answered``,
``waited`` or ``client_gone``. It does what the returned step says. Before a first byte it asks ``declined`` about a
status in ``DECLINES``; a step that comes of it ends the attempt, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Protocol

from tailrace.core.model import Outcome, Pick, Refusal, RefusalCode, Request, Usage
from tailrace.core.queue import Answer, Waiting

MAX_ATTEMPTS = 3
MAX_UNREACHABLE = 10

DECLINES = frozenset({429, 503})
"""The HTTP statuses by which an engine says that it has not taken a request, and that another one may."""


class Failure(Enum):
    """What went wrong with an attempt, as the transport saw it."""

    CONNECT = "connect"
    STALE = "stale"
    NO_RESPONSE = "no-response"
    LATE = "first-byte-timeout"
    BROKEN = "broken"
    IDLE = "idle-timeout"
    TOTAL = "total-timeout"


class Again(Enum):
    """Where a failed attempt may be tried again."""

    SAME = "same"
    OTHER = "other"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means to the client: HTTP status, ``error.code`` and text; and where to try again."""

    again: Again
    status: int
    code: str
    text: str


VERDICTS: dict[Failure, Verdict] = {
    Failure.CONNECT: Verdict(Again.OTHER, 502, "upstream_unreachable", "could not connect to the model server"),
    Failure.STALE: Verdict(Again.SAME, 502, "upstream_closed", "the model server closed the connection"),
    Failure.NO_RESPONSE: Verdict(Again.OTHER, 502, "upstream_closed", "the model server gave no valid answer"),
    Failure.LATE: Verdict(Again.NOWHERE, 504, "upstream_timeout", "the model server did not begin to answer in time"),
    Failure.BROKEN: Verdict(Again.NOWHERE, 502, "upstream_broken", "the model server broke off its answer"),
    Failure.IDLE: Verdict(Again.NOWHERE, 504, "upstream_idle", "the model server stopped sending"),
    Failure.TOTAL: Verdict(Again.NOWHERE, 504, "upstream_timeout", "the request took longer than its time limit"),
}

_CUT = Verdict(Again.OTHER, 503, "drain_deadline", "the model server's drain deadline has passed")
_STOPPED = Verdict(Again.NOWHERE, 503, "shutting_down", "the router is stopping and could not wait for the answer")


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the request to this endpoint."""

    pick: Pick


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is free: wait until the router answers, at most until that time."""

    until: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with this refusal: nothing was sent anywhere."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer with this error; when bytes have been sent (``streaming``), end the stream with it."""

    verdict: Verdict
    streaming: bool


Step = Forward | Wait | Refuse | Fail


class Attempts(Protocol):
    """What the exchange needs of the router."""

    def acquire(self, request: Request, now: float) -> Pick | Refusal:
        """Choose an endpoint and book an attempt."""
        ...

    def wait(self, request: Request, now: float, answer: Answer, came_at: float) -> Waiting | Refusal:
        """Have a request wait that got no endpoint, and first came then."""
        ...

    def leave(self, waiting: Waiting) -> None:
        """Let go of a request that waits no longer."""
        ...

    def give_up(self, waiting: Waiting, now: float) -> Pick | Refusal:
        """End the wait of a request that was not answered."""
        ...

    def first_byte(self, attempt_id: str, now: float, *, ok: bool = True) -> None:
        """Note that the engine has begun to answer."""
        ...

    def release(self, attempt_id: str, outcome: Outcome, now: float, usage: Usage | None = None) -> bool:
        """Book the end of an attempt."""
        ...

    def unreached(self, attempt_id: str) -> None:
        """Note that no connection could be made for the attempt."""
        ...

    def is_overdue(self, attempt_id: str, now: float) -> bool:
        """Tell whether the drain deadline of the attempt's endpoint has passed."""
        ...

    def may_repeat(self, attempt_id: str) -> bool:
        """Tell whether the attempt may be sent to its endpoint once more."""
        ...


class Exchange:
    """The life of one request; see the rules at the top of the file.

    ``on_answer`` is called when the router answers a request that waits; ``answered`` then says what it was.
    """

    def __init__(self, attempts: Attempts, request: Request, on_answer: Callable[[], None] = lambda: None) -> None:
        self._attempts = attempts
        self._request = request
        self._pick: Pick | None = None
        self._began = False
        self._tries = 0
        self._unreachable = 0
        self._avoid = request.avoid
        self._stale_at: str | None = None
        self._on_answer = on_answer
        self._waiting: Waiting | None = None
        self._answer: Pick | Refusal | None = None
        self._started_at = 0.0
        self._deadline = inf

    @property
    def began(self) -> bool:
        """Whether a byte of the answer has reached the client."""
        return self._began

    @property
    def tries(self) -> int:
        """How many attempts were made."""
        return self._tries

    def start(self, now: float) -> Forward | Wait | Refuse:
        """Pick the first endpoint."""
        self._started_at = now
        return self._try(now)

    def answered(self) -> Forward | Refuse:
        """Say what the router's answer to the request that waited means."""
        answer, self._answer, self._waiting = self._answer, None, None
        if answer is None:
            raise RuntimeError("the request was not answered: wait until on_answer is called")
        return self._follow(answer)

    def waited(self, now: float) -> Forward | Refuse | Fail:
        """Say what follows when the request has waited for as long as it may."""
        if self._answer is None and self._waiting is not None:
            if self._deadline < self._waiting.until:
                self._attempts.leave(self._waiting)
                self._waiting = None
                return Fail(VERDICTS[Failure.TOTAL], streaming=False)
            self._answer = self._attempts.give_up(self._waiting, now)
        return self.answered()

    def first_byte(self, now: float, *, ok: bool = True) -> None:
        """Note that the answer begins: from here on it cannot be retried. ``ok``: it is no error."""
        self._began = True
        self._attempts.first_byte(self._current().attempt, now, ok=ok)

    def completed(self, now: float, usage: Usage | None = None) -> None:
        """Book the whole answer as relayed; ``usage`` is what the engine counted, where somebody looked."""
        self._end(Outcome.COMPLETED, now, usage)

    def client_gone(self, now: float) -> None:
        """Book that the client left: the attempt ends, its slot is free; a request that waits does so no longer."""
        if self._waiting is not None:
            self._attempts.leave(self._waiting)
            self._waiting = None
        if isinstance(self._answer, Pick):
            self._pick = self._answer
        if self._pick is not None:
            self._end(Outcome.CLIENT_GONE, now)

    def failed(self, failure: Failure, now: float) -> Step:
        """Say what to do after a failure."""
        verdict = VERDICTS[failure]
        pick = self._current()
        if failure is Failure.BROKEN and self._attempts.is_overdue(pick.attempt, now):
            return self.cut(now)  # the engine was told to stop at the deadline, and was faster than the cut
        if self._began:
            self._end(Outcome.LOST, now)
            return Fail(verdict, streaming=True)
        if failure is Failure.CONNECT:
            self._unreachable += 1
            self._attempts.unreached(pick.attempt)
        if verdict.again is Again.NOWHERE or self._is_exhausted():
            self._end(Outcome.FAILED, now)
            return Fail(verdict, streaming=False)
        if verdict.again is Again.SAME and self._stale_at != pick.uid and self._attempts.may_repeat(pick.attempt):
            self._stale_at = pick.uid
            self._tries += 1
            return Forward(pick)
        return self._elsewhere(verdict, Outcome.FAILED, now)

    def declined(self, now: float) -> Forward | Wait | None:
        """Say where to go when the engine has declined; None: nowhere else, its answer is to be relayed."""
        if self._is_exhausted():
            return None
        left = self._current().attempt
        step = self._move(now)
        if isinstance(step, Refuse):
            return None
        self._attempts.first_byte(left, now, ok=False)
        self._attempts.release(left, Outcome.REROUTED, now)
        if isinstance(step, Wait):
            self._pick = None
        return step

    def cut(self, now: float) -> Step:
        """Say what to do when the endpoint's drain deadline has passed."""
        if self._began:
            self._end(Outcome.CUT, now)
            return Fail(_CUT, streaming=True)
        return self._elsewhere(_CUT, Outcome.CUT, now)

    def stopped(self, now: float) -> Fail:
        """Say what to do when this router stops before the answer has ended."""
        self._end(Outcome.CUT, now)
        return Fail(_STOPPED, streaming=self._began)

    def _is_exhausted(self) -> bool:
        return self._unreachable >= MAX_UNREACHABLE or self._tries - self._unreachable >= MAX_ATTEMPTS

    def _elsewhere(self, verdict: Verdict, otherwise: Outcome, now: float) -> Step:
        """Try another endpoint; the attempt under way ends as ``otherwise`` when there is none."""
        left = self._current()
        step = self._move(now)
        moved = isinstance(step, Forward | Wait)
        self._attempts.release(left.attempt, Outcome.REROUTED if moved else otherwise, now)
        if not isinstance(step, Forward):
            self._pick = None
        if isinstance(step, Refuse) and step.refusal.code is not RefusalCode.SATURATED:
            return Fail(verdict, streaming=False)
        return step

    def _move(self, now: float) -> Forward | Wait | Refuse:
        """Pick another endpoint than those that were tried."""
        self._avoid |= {self._current().uid}
        return self._try(now)

    def _try(self, now: float) -> Forward | Wait | Refuse:
        request = self._request._replace(avoid=self._avoid) if self._tries else self._request
        answer = self._attempts.acquire(request, now)
        if isinstance(answer, Refusal) and answer.code is RefusalCode.SATURATED and request.patient:
            return self._queue(request, now)
        return self._follow(answer)

    def _queue(self, request: Request, now: float) -> Wait | Refuse:
        answer = self._attempts.wait(request, now, self._answered, self._started_at)
        if isinstance(answer, Refusal):
            return Refuse(answer)
        self._waiting = answer
        return Wait(min(answer.until, self._deadline))

    def _answered(self, answer: Pick | Refusal) -> None:
        self._answer = answer
        self._on_answer()

    def _follow(self, answer: Pick | Refusal) -> Forward | Refuse:
        if isinstance(answer, Refusal):
            return Refuse(answer)
        self._tries += 1
        self._pick = answer
        self._deadline = self._started_at + answer.timeouts.total
        return Forward(answer)

    def _end(self, outcome: Outcome, now: float, usage: Usage | None = None) -> None:
        self._attempts.release(self._current().attempt, outcome, now, usage)
        self._pick = None

    def _current(self) -> Pick:
        if self._pick is None:
            raise RuntimeError("no attempt is under way: start() first, and one end an attempt")
        return self._pick
