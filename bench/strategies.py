"""What strategies make of TTFT: the core's against the peers' rules, simulated: `python -m bench strategies`.

Every cell of the table is five runs on requests that differ; all strategies run on the same ones. `--trace FILE` adds a
recorded trace, each run getting a part of it. The last column compares the TTFT p99 of LeastEstimatedTTFT with that of
the best other one, pair by pair: below 1 it is better, and the interval says whether that may be chance.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tailrace.simulate.engine import Hardware
from tailrace.simulate.requests import source
from tailrace.simulate.study import Estimate, Row, estimate, study
from tailrace.simulate.trace import Trace

OURS = "LeastEstimatedTTFT"
OTHERS = (
    "RoundRobin",
    "LeastRequests",
    "PowerOfTwoChoices",
    "LeastTokens",
    "kubeai-prefix-hash",
    "sglang-cache-aware",
    "llm-d-scorers",
)
LOADS = (0.7, 1.0, 1.3)
SEEDS = 5
SECONDS = 240.0
FIRST_SEED = 1000
"""Seeds below were used to choose constants."""
RATES = {"no-sharing": 16.0, "system-prompt": 28.0, "hot-prefix": 28.0, "bursts": 16.0, "sessions": 18.0}
"""Requests a second that eight equal pods have to work for, without being overrun."""
TOKENS = 2_000_000
USUAL = Hardware(kv_tokens=TOKENS // 2, cache_tokens=TOKENS)
SLOW = Hardware(speed=0.5, kv_tokens=TOKENS // 2, cache_tokens=TOKENS)
FLEETS = {"equal": ([USUAL] * 8, 1.0), "mixed": ([SLOW] * 2 + [USUAL] * 6, 7 / 8)}
"""Engines, and how much of the rate of eight equal ones they are given."""

Traces = Callable[[int], Trace]


def made(name: str, rate: float) -> Traces:
    """Return what makes the requests of a workload, by seeds that nothing was chosen by."""
    make = source(None, name, rate=rate, seconds=SECONDS, parts=SEEDS)
    return lambda seed: make(FIRST_SEED + seed)


def against(ours: Row, other: Row) -> Estimate:
    """Return our TTFT p99 divided by the other's, run by run."""
    return estimate([a.ttft99 / b.ttft99 for a, b in zip(ours.figures, other.figures, strict=True)])


def line(cell: str, rows: list[Row]) -> str:
    """Return a row of the table: the TTFT p99 of everybody, and the comparison with the best."""
    ours, *others = rows
    best = min(others, key=lambda row: row.estimate("ttft99").mean)
    ratio = against(ours, best)
    found = "".join(f"{row.estimate('ttft99').mean:>8.2f} ±{row.estimate('ttft99').within:<6.2f}" for row in rows)
    return f"{cell:<28}{found}  {ratio.mean:.2f} ±{ratio.within:.2f} {best.strategy}"


def main(arguments: list[str]) -> None:
    """Print one line a cell."""
    recorded = arguments[arguments.index("--trace") + 1] if "--trace" in arguments else ""
    names = [OURS, *OTHERS]
    print("TTFT p99, seconds: mean of five runs, half-width of the 95 % interval")
    print(f"{'':<28}" + "".join(f"{name[:15]:>16}" for name in names) + "  against the best")
    for fleet, (engines, share) in FLEETS.items():
        for load in LOADS:
            cells: dict[str, Traces] = {name: made(name, rate * load * share) for name, rate in RATES.items()}
            if recorded:
                parts = source(Path(recorded), "", rate=1.0, seconds=0.0, parts=SEEDS)
                cells["recorded"] = lambda seed, f=load * share, parts=parts: parts(seed).faster(f)  # type: ignore[misc]
            for name, traces in cells.items():
                print(line(f"{name} {fleet} x{load:g}", study(traces, engines, names, seeds=SEEDS)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
