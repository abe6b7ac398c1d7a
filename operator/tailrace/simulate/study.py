"""Several runs of each strategy, and what they say together: figures with the interval in which their mean lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean, stdev

from tailrace.simulate.engine import Hardware
from tailrace.simulate.run import CAPACITY, Run, simulate
from tailrace.simulate.trace import Trace

STUDENT_95 = (0.0, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond nine the normal one is near enough."""
NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to: seconds to the first token, seconds between tokens, and shares."""

    ttft50: float
    ttft90: float
    ttft99: float
    itl: float
    hits: float
    busiest: float
    """Prompt tokens computed by the busiest engine against the mean of all."""
    waited: float
    """The part of requests that no endpoint had a slot for when they came."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds, and how far from it the true mean may be (95 %); 0 with one seed."""

    mean: float
    within: float


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy's figures by seed, in one setting; others ran on the same requests. ``first`` is a whole run."""

    strategy: str
    figures: tuple[Figures, ...]
    first: Run

    def estimate(self, name: str) -> Estimate:
        """Return the estimate of one figure."""
        return estimate([getattr(each, name) for each in self.figures])


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least that share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(1, ceil(share * len(ordered))) - 1]


def figures(run: Run) -> Figures:
    """Return what a run came to."""
    ttfts = sorted(job.first_at - job.arrival.at for job in run.jobs if job.first_at is not None)
    computed = [0.0] * run.engines
    for job, place in zip(run.jobs, run.places, strict=True):
        computed[place] += job.arrival.prompt - job.cached
    return Figures(
        ttft50=quantile(ttfts, 0.5),
        ttft90=quantile(ttfts, 0.9),
        ttft99=quantile(ttfts, 0.99),
        itl=_itl(run),
        hits=sum(job.cached for job in run.jobs) / sum(job.arrival.prompt for job in run.jobs),
        busiest=max(computed) / (sum(computed) / len(computed)),
        waited=sum(job.sent_at > job.arrival.at for job in run.jobs) / len(run.jobs),
    )


def _itl(run: Run) -> float:
    gaps = [
        (job.ended_at - job.first_at) / (job.arrival.output - 1)
        for job in run.jobs
        if job.ended_at is not None and job.first_at is not None and job.arrival.output > 1
    ]
    return fmean(gaps) if gaps else 0.0


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and 95 % interval of independent values."""
    count = len(values)
    if count < 2:
        return Estimate(values[0], 0.0)
    student = STUDENT_95[count - 1] if count <= len(STUDENT_95) else NORMAL_95
    return Estimate(fmean(values), student * stdev(values) / sqrt(count))


def study(
    traces: Callable[[int], Trace],
    fleet: Sequence[Hardware],
    strategies: Iterable[str],
    *,
    seeds: int,
    capacity: int = CAPACITY,
    routers: int = 1,
) -> list[Row]:
    """Run every strategy on the trace of every seed."""
    made = [traces(seed) for seed in range(seeds)]
    rows = []
    for strategy in strategies:
        runs = [
            simulate(trace, fleet, strategy, seed=seed, capacity=capacity, routers=routers)
            for seed, trace in enumerate(made)
        ]
        rows.append(Row(strategy, tuple(figures(run) for run in runs), runs[0]))
    return rows


def least_ttfts(trace: Trace, fleet: Sequence[Hardware]) -> list[float]:
    """Return times to first token that nobody can be below, whoever chooses.

    Each request alone at the fastest engine, with one cache for all engines that has every prompt which came before.
    """
    fastest = max(fleet, key=lambda hardware: hardware.prefill * hardware.speed)
    known: set[int] = set()
    found = []
    for arrival in trace.arrivals:
        depth = next((depth for depth, block in enumerate(arrival.chain) if block not in known), len(arrival.chain))
        known.update(arrival.chain)
        uncached = arrival.prompt - min(depth * trace.block_tokens, arrival.prompt - 1)
        found.append((uncached / fastest.prefill + fastest.base) / fastest.speed)
    return found
