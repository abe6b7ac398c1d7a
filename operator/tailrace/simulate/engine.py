"""A batching inference engine in time steps that are as long as nothing happens.

The rules are those of `tailrace model-server`, with decoding as a flow: every sequence of a batch is given tokens at
the same rate, which falls as the batch grows. So a request costs a few events instead of one for each token.

1. A sequence waits in order of arrival for a slot and for room in the KV cache for its prompt and its answer.
2. Prefill is serial, at the engine's prefill speed; the prefix cache is read when a prompt's turn comes.
3. The first token follows ``base`` seconds after the prefill; then the sequence decodes with the batch.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from tailrace.simulate.trace import Arrival


@dataclass(frozen=True, slots=True)
class Hardware:
    """How fast and how large an engine is: seconds and tokens. ``speed`` divides every time."""

    speed: float = 1.0
    slots: int = 64
    prefill: float = 8000.0
    base: float = 0.03
    itl: float = 0.02
    itl_growth: float = 0.01
    kv_tokens: int = 400_000
    cache_tokens: int = 400_000


class Job:
    """One request at one engine. Times are None until they have come."""

    __slots__ = ("arrival", "cached", "ended_at", "first_at", "number", "sent_at")

    def __init__(self, number: int, arrival: Arrival, sent_at: float) -> None:
        self.number = number
        self.arrival = arrival
        self.sent_at = sent_at
        self.cached = 0
        self.first_at: float | None = None
        self.ended_at: float | None = None


class Happened(NamedTuple):
    """A first token, or the end of a request."""

    job: Job
    ended: bool


class Engine:
    """The rules above; the caller passes the time in and asks for the next event."""

    def __init__(self, hardware: Hardware, block_tokens: int) -> None:
        self.hardware = hardware
        self.in_flight = 0
        self._block_tokens = block_tokens
        self._cache: OrderedDict[int, None] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._held = 0
        self._prompts = 0
        self._began = 0.0
        self._slots = 0
        self._to_prefill: deque[Job] = deque()
        self._prefilling: Job | None = None
        self._prefill_ends = inf
        self._first: deque[tuple[float, Job]] = deque()
        self._decoding: list[tuple[float, int, Job]] = []
        self._tokens = 0.0
        """Tokens that a sequence which decoded all the time would have been given."""
        self._at = 0.0

    @property
    def waiting(self) -> int:
        """Requests that have not begun to decode, as engines count their queue."""
        return len(self._waiting) + len(self._to_prefill)

    @property
    def kv_usage(self) -> float:
        """The part of the KV cache that holds tokens, as engines tell it: a request that waits has none yet."""
        generated = len(self._decoding) * self._tokens - self._began
        return (self._prompts + generated) / self.hardware.kv_tokens

    def cached(self, chain: tuple[int, ...]) -> int:
        """Return how many blocks of a chain, from its beginning, the prefix cache holds."""
        return self._match(chain)

    def first_token_at(self, arrival: Arrival, now: float) -> float:
        """Return when the first token of a request comes that is sent now, if nothing is sent after it."""
        if self._waiting or not self._has_room(arrival):
            return self._tried(arrival, now)
        at, known = now, set[int]()
        if self._prefilling is not None:
            at = self._prefill_ends
            known.update(self._prefilling.arrival.chain)
        for ahead in (*(job.arrival for job in self._to_prefill), arrival):
            at += self._uncached(ahead, known) / (self.hardware.prefill * self.hardware.speed)
            known.update(ahead.chain)
        return at + self.hardware.base / self.hardware.speed

    def slow_down(self, hardware: Hardware, now: float) -> None:
        """Go on with other hardware; what is being computed is finished at the old speed."""
        self._flow(now)
        self.hardware = hardware

    def submit(self, job: Job, now: float) -> None:
        """Take a request in."""
        self._flow(now)
        self.in_flight += 1
        self._waiting.append(job)
        self._admit(now)

    def next_event(self) -> float:
        """Return when something happens next."""
        first = self._first[0][0] if self._first else inf
        done = self._at + (self._decoding[0][0] - self._tokens) / self._rate() if self._decoding else inf
        return min(self._prefill_ends, first, done)

    def advance(self, now: float) -> list[Happened]:
        """Let happen what is due by now, which must not be after the next event by more than rounding."""
        self._flow(now)
        happened: list[Happened] = []
        if self._prefill_ends <= now:
            self._end_prefill(now)
        while self._first and self._first[0][0] <= now:
            self._begin(self._first.popleft()[1], now, happened)
        while self._decoding and self._decoding[0][0] <= self._tokens + 1e-6:
            done, _, job = heappop(self._decoding)
            self._began -= done - (job.arrival.output - 1)
            self._finish(job, now, happened)
        self._admit(now)
        return happened

    def _tried(self, arrival: Arrival, now: float) -> float:
        """Return the same by going on in a copy. What it writes into jobs is written again when it has come."""
        trial, job = copy(self), Job(-1, arrival, now)
        for name in ("_cache", "_waiting", "_to_prefill", "_first", "_decoding"):
            setattr(trial, name, copy(getattr(self, name)))
        trial.submit(job, now)
        while job.first_at is None:
            trial.advance(trial.next_event())
        return job.first_at

    def _flow(self, now: float) -> None:
        self._tokens += max(0.0, now - self._at) * self._rate()
        self._at = max(now, self._at)

    def _rate(self) -> float:
        batch = max(1, len(self._decoding))
        return self.hardware.speed / (self.hardware.itl * (1 + self.hardware.itl_growth * (batch - 1)))

    def _admit(self, now: float) -> None:
        while self._waiting and self._has_room(self._waiting[0].arrival):
            job = self._waiting.popleft()
            self._slots += 1
            self._held += _size(job)
            self._to_prefill.append(job)
        if self._prefilling is None and self._to_prefill:
            self._start_prefill(self._to_prefill.popleft(), now)

    def _has_room(self, arrival: Arrival) -> bool:
        """Whether it fits; one that never would runs alone."""
        fits = self._held + arrival.prompt + arrival.output <= self.hardware.kv_tokens
        return self._slots < self.hardware.slots and (fits or not self._slots)

    def _start_prefill(self, job: Job, now: float) -> None:
        uncached = self._uncached(job.arrival)
        job.cached = job.arrival.prompt - uncached
        self._prefilling = job
        self._prompts += job.arrival.prompt
        self._prefill_ends = now + uncached / (self.hardware.prefill * self.hardware.speed)

    def _end_prefill(self, now: float) -> None:
        job = self._prefilling
        self._prefilling = None
        self._prefill_ends = inf
        if job is not None:
            self._store(job.arrival.chain)
            self._first.append((now + self.hardware.base / self.hardware.speed, job))

    def _begin(self, job: Job, now: float, happened: list[Happened]) -> None:
        job.first_at = now
        happened.append(Happened(job, ended=False))
        self._began += self._tokens
        heappush(self._decoding, (self._tokens + job.arrival.output - 1, job.number, job))

    def _finish(self, job: Job, now: float, happened: list[Happened]) -> None:
        job.ended_at = now
        self.in_flight -= 1
        self._slots -= 1
        self._held -= _size(job)
        self._prompts -= job.arrival.prompt
        happened.append(Happened(job, ended=True))

    def _uncached(self, arrival: Arrival, known: Collection[int] = ()) -> int:
        """Return the tokens to be computed, at least the last one; blocks that are ``known`` will be cached by then."""
        return arrival.prompt - min(self._match(arrival.chain, known) * self._block_tokens, arrival.prompt - 1)

    def _match(self, chain: tuple[int, ...], known: Collection[int] = ()) -> int:
        for depth, block in enumerate(chain):
            if block not in self._cache and block not in known:
                return depth
        return len(chain)

    def _store(self, chain: tuple[int, ...]) -> None:
        for block in reversed(chain):
            self._cache[block] = None
            self._cache.move_to_end(block)
        while len(self._cache) > self.hardware.cache_tokens // self._block_tokens:
            self._cache.popitem(last=False)


def _size(job: Job) -> int:
    return job.arrival.prompt + job.arrival.output
