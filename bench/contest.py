"""What a comparison of routers has measured so far, kept in a file run by run, and the tables made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

import orjson
from bench.replay import Answer, Ended

from tailrace.simulate.study import Estimate, estimate, quantile


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition of one cell behind one router. Times are seconds of the engines, rates per second of them.

    ``late`` is how long the slowest of a hundred requests was sent after it was due, ``idle`` the part of the two cores
    that was left, the router's first: both say whether this machine was fast enough to measure anything.
    """

    cell: str
    router: str
    repetition: int
    requests: int
    ttft50: float
    ttft90: float
    ttft99: float
    itl50: float
    itl99: float
    tokens_per_second: float
    hits: float
    lost: int
    shed: int
    cpu_seconds: float
    late: float
    idle: tuple[float, float]


def measured(
    cell: str,
    router: str,
    repetition: int,
    answers: Sequence[Answer],
    *,
    compression: float,
    seconds: float,
    cpu_seconds: float,
    idle: tuple[float, float],
) -> Run:
    """Return what a run came to; those that did not end whole count in ``lost`` and ``shed`` alone."""
    whole = [answer for answer in answers if answer.ended is Ended.WHOLE]
    firsts = [answer.first * compression for answer in whole] or [0.0]
    gaps = [answer.gap * compression for answer in whole if answer.gap is not None] or [0.0]
    return Run(
        cell,
        router,
        repetition,
        requests=len(answers),
        ttft50=quantile(firsts, 0.5),
        ttft90=quantile(firsts, 0.9),
        ttft99=quantile(firsts, 0.99),
        itl50=quantile(gaps, 0.5),
        itl99=quantile(gaps, 0.99),
        tokens_per_second=sum(answer.tokens for answer in whole) / (seconds * compression),
        hits=sum(answer.cached for answer in whole) / max(1, sum(answer.prompt for answer in whole)),
        lost=sum(answer.ended is Ended.LOST for answer in answers),
        shed=sum(answer.ended is Ended.SHED for answer in answers),
        cpu_seconds=cpu_seconds,
        late=quantile([answer.late for answer in answers], 0.99) * compression,
        idle=idle,
    )


class Record:
    """Runs and what could not run, in a file that is written anew after each. ``settings`` is what they have in common.

    Runs made under other settings are dropped: they cannot be compared.
    """

    def __init__(self, path: Path, settings: dict[str, object]) -> None:
        self._path = path
        self._settings = settings
        self.runs: list[Run] = []
        self.unavailable: dict[str, str] = {}
        if path.exists():
            kept = orjson.loads(path.read_bytes())
            if kept["settings"] == orjson.loads(orjson.dumps(settings)):
                self.runs = [Run(**{**run, "idle": tuple(run["idle"])}) for run in kept["runs"]]

    def has(self, cell: str, router: str, repetition: int) -> bool:
        """Tell whether that run was made."""
        return any((run.cell, run.router, run.repetition) == (cell, router, repetition) for run in self.runs)

    def add(self, run: Run) -> None:
        """Keep a run."""
        self.runs.append(run)
        document = {"settings": self._settings, "unavailable": self.unavailable}
        document["runs"] = [asdict(each) for each in self.runs]
        aside = self._path.with_suffix(".new")
        aside.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        aside.replace(self._path)


COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("TTFT p50 s", "ttft50", 1.0, 2),
    ("p90", "ttft90", 1.0, 2),
    ("p99", "ttft99", 1.0, 2),
    ("ITL p50 ms", "itl50", 1000.0, 1),
    ("p99", "itl99", 1000.0, 1),
    ("tokens/s", "tokens_per_second", 1.0, 0),
    ("hits %", "hits", 100.0, 1),
)


def tables(runs: Sequence[Run], order: Sequence[str], ours: str) -> Iterator[str]:
    """Yield the lines of a table for each cell; ``ours`` is compared with everybody, repetition by repetition.

    A repetition that some routers have yet to make is left out, unless it is the only one.
    """
    for cell, each in groupby(sorted(runs, key=lambda run: run.cell), key=lambda run: run.cell):
        by_router = _by_router(_whole(list(each)), order)
        counts = sorted({run.requests for rows in by_router.values() for run in rows})
        yield f"\n### {cell}\n"
        yield f"{'-'.join(map(str, sorted({counts[0], counts[-1]})))} requests a repetition.\n"
        names = [name for name, *_ in COLUMNS]
        yield _row(["router", *names, "lost", "shed", "CPU s", f"{ours}: its p99 against this"])
        yield _row(["---"] * (len(COLUMNS) + 5))
        for router, rows in by_router.items():
            yield _row([router, *_figures(rows), _against(by_router.get(ours, []), rows)])


def _whole(runs: list[Run]) -> list[Run]:
    """Return the runs of the repetitions that all routers of a cell have made."""
    made = {number: {run.router for run in runs if run.repetition == number} for number in {r.repetition for r in runs}}
    most = max(map(len, made.values()))
    return [run for run in runs if len(made[run.repetition]) == most]


def _by_router(runs: Sequence[Run], order: Sequence[str]) -> dict[str, list[Run]]:
    found = {router: [run for run in runs if run.router == router] for router in order}
    return {router: rows for router, rows in found.items() if rows}


def _figures(rows: Sequence[Run]) -> Iterator[str]:
    for _, name, unit, digits in COLUMNS:
        yield _shown(estimate([getattr(run, name) * unit for run in rows]), digits)
    yield str(sum(run.lost for run in rows))
    yield str(sum(run.shed for run in rows))
    yield f"{fmean(run.cpu_seconds for run in rows):.1f}"


def _against(ours: Sequence[Run], other: Sequence[Run]) -> str:
    """Return our TTFT p99 divided by another's, mean and interval over the repetitions that both have."""
    theirs = {run.repetition: run.ttft99 for run in other}
    ratios = [run.ttft99 / theirs[run.repetition] for run in ours if theirs.get(run.repetition)]
    same = not ratios or ours[0].router == other[0].router
    return "" if same else _shown(estimate(ratios), 2)


def _shown(value: Estimate, digits: int) -> str:
    mean = f"{value.mean:.{digits}f}"
    return f"{mean} ±{value.within:.{digits}f}" if value.within else mean


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
