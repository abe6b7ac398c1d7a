"""The engine in real time: it runs when its next event is due, and tokens go out to their jobs."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

from tailrace.sim.clock import RateClock
from tailrace.sim.engine import Engine
from tailrace.sim.histogram import Histogram
from tailrace.sim.job import Job
from tailrace.sim.request_log import RequestLog
from tailrace.sim.sequence import Sequence, Token
from tailrace.sim.shapes.base import Answer, Ask, Shape

SLACK_SECONDS = 0.0005
"""Events this close are due: event loops keep time in milliseconds, and waking twice costs more than it mends."""

FINISHED = "finished"
CLIENT_GONE = "client-gone"
SIGTERM = "sigterm"
ABORTED = "aborted"


class Service:
    """Owns the engine, its clock and every job. Belongs to the running event loop.

    One timer serves all streams: an engine step wakes the loop once, whatever the batch.
    """

    def __init__(self, engine: Engine, log: RequestLog, *, speed: float = 1.0) -> None:
        self.engine = engine
        self.log = log
        self.ttft = Histogram()
        self.duration = Histogram()
        self.ends: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._clock = RateClock(time.monotonic, speed)
        self._jobs: dict[Sequence, Job] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: str | None = None

    @property
    def in_flight(self) -> int:
        """Return the number of jobs that have not ended."""
        return len(self._jobs)

    def start(self, shape: Shape, ask: Ask, *, request_id: str, salt: str, transport: asyncio.Transport | None) -> Job:
        """Give a request to the engine; raise TooLargeError when it can never run."""
        sequence = Sequence(request_id, ask.prompt, ask.max_tokens, salt, ask.prompt_tokens)
        sequence.stalled = self._is_stalled(request_id)
        self.engine.submit(sequence, self._clock.now())
        answer = Answer(shape.id_prefix + uuid4().hex, int(time.time()), ask, sequence)
        job = Job(request_id, answer, transport, time.monotonic(), self._loop.create_future())
        self._jobs[sequence] = job
        self._log_start(job, shape)
        self._arm()
        return job

    def end(self, job: Job, outcome: str) -> None:
        """Book how `job` ended, once: a second call changes nothing."""
        if job.ended:
            return
        job.ended = True
        del self._jobs[job.sequence]
        self.engine.cancel(job.sequence, self._clock.now())
        self.ends[job.ask.finish_reason if outcome == FINISHED else "abort"] += 1
        self.duration.observe(time.monotonic() - job.started)
        self._log_end(job, outcome)
        self._arm()

    def cut_all(self, outcome: str) -> None:
        """End every job and cut its connection, without a last event."""
        for job in list(self._jobs.values()):
            self.end(job, outcome)
            if job.transport is not None:
                job.transport.abort()

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs that have not ended."""
        yield from self._jobs.values()

    def set_rate(self, rate: float) -> None:
        """Run the engine at `rate` engine seconds per second; 0 stops it where it is."""
        self._clock.set_rate(rate)
        self._arm()

    def stall(self, prefix: str | None) -> None:
        """Hold the tokens of requests whose id begins with `prefix`, later ones included; None lets all go on."""
        self._stalled = prefix
        for job in self._jobs.values():
            job.sequence.stalled = self._is_stalled(job.request_id)

    def _is_stalled(self, request_id: str) -> bool:
        return self._stalled is not None and request_id.startswith(self._stalled)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        delay = self._clock.real_seconds_until(self.engine.next_event())
        if delay is not None:
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        for token in self.engine.advance(self._clock.now() + SLACK_SECONDS * self._clock.rate):
            self._deliver(token)
        self._arm()

    def _deliver(self, token: Token) -> None:
        job = self._jobs[token.sequence]
        if job.first_token is None:
            job.first_token = time.monotonic()
            self.ttft.observe(job.first_token - job.started)
        job.send(token.generated)
        if token.last:
            job.complete()

    def _log_start(self, job: Job, shape: Shape) -> None:
        ask = job.ask
        self.log.write(
            "start",
            request_id=job.request_id,
            model=ask.model,
            path=shape.path,
            stream=ask.stream,
            prompt_tokens=job.sequence.prompt_tokens,
            max_tokens=ask.max_tokens,
        )

    def _log_end(self, job: Job, outcome: str) -> None:
        self.log.write(
            "end",
            request_id=job.request_id,
            model=job.ask.model,
            outcome=outcome,
            prompt_tokens=job.sequence.prompt_tokens,
            cached_tokens=job.sequence.cached_tokens,
            max_tokens=job.ask.max_tokens,
            tokens_sent=job.tokens_sent,
            ttft_seconds=None if job.first_token is None else job.first_token - job.started,
            seconds=time.monotonic() - job.started,
        )
