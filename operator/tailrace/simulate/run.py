"""Runs one trace through one fleet under one strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from random import Random

from tailrace.simulate.balancers import Balancer, Setting, balancer
from tailrace.simulate.engine import Engine, Hardware, Job
from tailrace.simulate.trace import Trace

CAPACITY = 64
TICK = -1
"""In the place of an engine's number: nothing happens at an engine, but time goes by."""
TICK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """At that time that engine gets other hardware: it slows down, or recovers."""

    at: float
    engine: int
    hardware: Hardware


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it: every job with its times, and where each was."""

    jobs: tuple[Job, ...]
    places: tuple[int, ...]
    engines: int


class Simulation:
    """Events in order of time; of equal times arrivals come last."""

    def __init__(
        self,
        trace: Trace,
        fleet: Sequence[Hardware],
        strategy: str,
        *,
        seed: int,
        capacity: int = CAPACITY,
        routers: int = 1,
        changes: Sequence[Change] = (),
    ) -> None:
        self._jobs = [Job(number, arrival, arrival.at) for number, arrival in enumerate(trace.arrivals)]
        self._engines = [Engine(hardware, trace.block_tokens) for hardware in fleet]
        rng = Random(seed)  # noqa: S311 - a reproducible simulation, not a secret
        setting = Setting(trace.block_tokens, rng, capacity, routers)
        self._balancer: Balancer = balancer(strategy, self._engines, setting, self._place)
        self._places = [-1] * len(self._jobs)
        self._events: list[tuple[float, int]] = []
        self._due = [inf] * len(fleet)
        self._ticks = False
        self._changes = [(change.at, number, change) for number, change in enumerate(changes)]
        heapify(self._changes)

    def run(self) -> Run:
        """Run until the last request has ended."""
        for job in self._jobs:
            self._until(job.arrival.at)
            self._balancer.arrived(job, job.arrival.at)
            self._watch(job.arrival.at)
        self._until(inf)
        return Run(tuple(self._jobs), tuple(self._places), len(self._engines))

    def _until(self, time: float) -> None:
        while self._events and self._events[0][0] <= time:
            now, number = heappop(self._events)
            self._change(now)
            if number == TICK:
                self._ticks = False
                self._balancer.tick(now)
            elif self._due[number] == now:
                self._happen(number, now)
            self._watch(now)

    def _watch(self, now: float) -> None:
        """Have the balancer look at the clock soon while requests wait, as doors do."""
        if not self._ticks and self._balancer.waits:
            self._ticks = True
            heappush(self._events, (now + TICK_SECONDS, TICK))

    def _change(self, now: float) -> None:
        while self._changes and self._changes[0][0] <= now:
            change = heappop(self._changes)[2]
            self._engines[change.engine].slow_down(change.hardware, now)
            self._expect(change.engine)

    def _happen(self, number: int, now: float) -> None:
        for job, ended in self._engines[number].advance(now):
            if ended:
                self._balancer.ended(job, now)
            else:
                self._balancer.first_token(job, now)
        self._expect(number)

    def _place(self, job: Job, engine: int, now: float) -> None:
        job.sent_at = now
        self._places[job.number] = engine
        self._engines[engine].submit(job, now)
        self._expect(engine)

    def _expect(self, number: int) -> None:
        due = self._engines[number].next_event()
        if due != self._due[number]:
            self._due[number] = due
            if due < inf:
                heappush(self._events, (due, number))


def simulate(
    trace: Trace,
    fleet: Sequence[Hardware],
    strategy: str,
    *,
    seed: int,
    capacity: int = CAPACITY,
    routers: int = 1,
    changes: Sequence[Change] = (),
) -> Run:
    """Run the trace through the fleet; equal arguments give equal results."""
    made = Simulation(trace, fleet, strategy, seed=seed, capacity=capacity, routers=routers, changes=changes)
    return made.run()
