"""Where a study's requests come from: one trace for each seed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tailrace.simulate.trace import BadTraceError, Trace, read_trace
from tailrace.simulate.workloads import WORKLOADS, generate
from tailrace.words import counted


def source(path: Path | None, workload: str, *, rate: float, seconds: float, parts: int) -> Callable[[int], Trace]:
    """Return what makes the trace of a seed: part of a recorded one, or one made anew.

    A recorded trace is cut to ``seconds`` (0: not at all) and that into ``parts`` of equal time, one for each seed.
    ``BadTraceError`` when the file or the workload is none.
    """
    if path is not None:
        return _parts(read_trace(path), seconds, parts)
    if workload not in WORKLOADS:
        raise BadTraceError(f"no workload {workload!r}; there are {', '.join(WORKLOADS)}")
    if seconds <= 0:
        raise BadTraceError("made requests have no end of their own; give --seconds")
    return lambda seed: generate(workload, seed, seconds=seconds, rate=rate)


def _parts(trace: Trace, seconds: float, parts: int) -> Callable[[int], Trace]:
    whole = trace.arrivals[-1].at + 1.0
    taken = min(seconds, whole) if seconds else whole
    if not _all_have_some(trace, taken, parts):
        raise BadTraceError(_too_few(trace, taken, parts))
    length = taken / parts
    return [trace.between(part * length, (part + 1) * length) for part in range(parts)].__getitem__


def _all_have_some(trace: Trace, taken: float, parts: int) -> bool:
    times = [arrival.at for arrival in trace.arrivals]
    bounds = [bisect_left(times, part * (taken / parts)) for part in range(parts + 1)]
    return all(first < end for first, end in pairwise(bounds))


def _too_few(trace: Trace, taken: float, parts: int) -> str:
    """Say what the trace has, and the most seeds that it is enough for."""
    some = trace.between(0.0, taken)
    enough = next((n for n in range(parts - 1, 0, -1) if _all_have_some(some, taken, n)), 0)
    fewer = f"--seeds {enough} is the most that these are enough for; " if enough else ""
    return (
        f"the trace has {counted(len(trace.arrivals), 'request')}, {len(some.arrivals)} of them in the {taken:.0f} s "
        f"that are taken; {parts} parts of that, one for each seed, would leave one empty. {fewer}"
        "--seconds 0 takes the whole trace"
    )
