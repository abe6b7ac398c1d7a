"""Where a study's requests come from: one trace for each seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tailrace.simulate.trace import BadTraceError, Trace, read_trace
from tailrace.simulate.workloads import WORKLOADS, generate


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
    end = trace.arrivals[-1].at + 1.0
    length = (min(seconds, end) if seconds else end) / parts
    made = [trace.between(part * length, (part + 1) * length) for part in range(parts)]
    if not all(part.arrivals for part in made):
        raise BadTraceError(f"no requests in one of {parts} parts of {length:.0f} s; take fewer seeds or more seconds")
    return made.__getitem__
