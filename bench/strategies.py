"""What strategies make of TTFT, simulated: the core's against the peers' rules: `python -m bench strategies`.

Every cell is five runs on requests that differ; all strategies run on the same ones, by seeds that nothing was chosen
by. Recorded traces are taken from `--traces FOLDER` (default ../shared/data/traces, and left out where there are none);
each run gets a fifth of them. Options: `--fleet`, `--load`, `--requests` (a name) narrow the grid, `--seeds N`,
`--first-seed N`, `--workers N` processes side by side. `--add` keeps cells of the last results that are not run again,
`--only NAME` runs that strategy and keeps the others' figures (the last results must be of the same seeds).

A cell compares the TTFT p99 of LeastEstimatedTTFT with that of the best peer, run by run: below 1 it is better. Oracle
is the same for somebody who knows the engines' queues and caches as they are, and floor for somebody with one cache
that forgets nothing and no queue at all.
Written besides: results/strategies.json, with every figure, and results/strategies.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench.cells import RATES

from tailrace.simulate.engine import Hardware
from tailrace.simulate.requests import source
from tailrace.simulate.run import simulate
from tailrace.simulate.study import Estimate, Figures, estimate, figures, least_ttfts, quantile
from tailrace.simulate.trace import Trace
from tailrace.simulate.workloads import generate

RESULTS = Path(__file__).resolve().parent / "results"
TRACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "traces"
OURS = "LeastEstimatedTTFT"
PEERS = (
    "RoundRobin",
    "LeastRequests",
    "PowerOfTwoChoices",
    "LeastTokens",
    "kubeai-prefix-hash",
    "sglang-cache-aware",
    "smg-cache-aware",
    "llm-d-scorers",
    "dynamo-kv",
)
ORACLE = "oracle"
"""Nobody's rule, and no peer: how far a choice of pods gets that is made with all there is to know of them."""
EVERYBODY = (OURS, *PEERS, ORACLE)
LOADS = (0.7, 1.0, 1.3)
SECONDS = 240.0
RECORDED = {"mooncake": "mooncake-conversation.jsonl", "azure": "azure-2023-conversation.csv"}
TOKENS_A_SECOND = 41_000.0
"""Prompt tokens a second of a recorded trace at load 1: Mooncake's own. Others are pressed together in time to it."""
TOKENS = 2_000_000
USUAL = Hardware(kv_tokens=TOKENS // 2, cache_tokens=TOKENS)
SLOW = Hardware(speed=0.5, kv_tokens=TOKENS // 2, cache_tokens=TOKENS)
FLEETS = {"equal": ([USUAL] * 8, 1.0), "mixed": ([SLOW] * 2 + [USUAL] * 6, 7 / 8)}
"""Engines, and how much of the rate of eight equal ones they are given."""
CAPACITY = 64
"""As many as an engine has slots, which is what capacity means. The peers' rules send without a bound."""
BETTER = 0.9


@dataclass(frozen=True, slots=True)
class Task:
    """One run of strategies: which requests, of which seed, on which fleet, at which load."""

    requests: str
    fleet: str
    load: float
    seed: int
    part: int
    parts: int
    folder: str
    names: tuple[str, ...] = EVERYBODY


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of the runs of one setting: figures by strategy, one of each for each seed, and the least p99."""

    requests: str
    fleet: str
    load: float
    figures: dict[str, list[Figures]]
    floors: list[float]

    @property
    def best(self) -> str:
        """The peer with the least p99."""
        return min(PEERS, key=lambda name: estimate([each.ttft99 for each in self.figures[name]]).mean)

    def ratio(self, name: str) -> Estimate:
        """Return our p99 divided by another's, run by run."""
        pairs = zip(self.figures[OURS], self.figures[name], strict=True)
        return estimate([ours.ttft99 / theirs.ttft99 for ours, theirs in pairs])

    def oracle(self) -> float:
        """Return the oracle's p99, divided by the best peer's."""
        return self._against_best([each.ttft99 for each in self.figures[ORACLE]])

    def floor(self) -> float:
        """Return the least p99 that anybody could have, divided by the best peer's."""
        return self._against_best(self.floors)

    def _against_best(self, p99s: Sequence[float]) -> float:
        theirs = self.figures[self.best]
        return estimate([p99 / each.ttft99 for p99, each in zip(p99s, theirs, strict=True)]).mean

    def has_to_be_better(self) -> bool:
        """Whether this is one of the settings in which a tenth is asked for."""
        recorded = self.requests in RECORDED and self.load >= 1.0
        return recorded or self.fleet == "mixed" or self.requests == "system-prompt"

    def verdict(self) -> str:
        """Say in a word how the cell stands: better by a tenth, better, level (the interval holds 1) or worse."""
        ratio = self.ratio(self.best)
        if ratio.mean <= BETTER:
            return "tenth"
        if ratio.mean + ratio.within < 1.0:
            return "better"
        return "level" if ratio.mean - ratio.within <= 1.0 else "worse"


@lru_cache(maxsize=4)
def recorded(path: str, parts: int) -> list[Trace]:
    """Return the parts of a recorded trace, at the tokens a second of load 1."""
    part = source(Path(path), "", rate=1.0, seconds=0.0, parts=parts)
    made = [part(number) for number in range(parts)]
    tokens = sum(a.prompt for each in made for a in each.arrivals)
    seconds = sum(each.arrivals[-1].at for each in made)
    return [each.faster(TOKENS_A_SECOND * seconds / tokens) for each in made]


def requests(task: Task) -> Trace:
    """Return the requests of a task."""
    share = FLEETS[task.fleet][1] * task.load
    if task.requests in RECORDED:
        return recorded(str(Path(task.folder) / RECORDED[task.requests]), task.parts)[task.part].faster(share)
    return generate(task.requests, task.seed, seconds=SECONDS, rate=RATES[task.requests] * share)


def run(task: Task) -> tuple[dict[str, Figures], float]:
    """Run the strategies on the requests of a task; with the least p99 that there can be."""
    trace, fleet = requests(task), FLEETS[task.fleet][0]
    found = {name: figures(simulate(trace, fleet, name, seed=task.seed, capacity=CAPACITY)) for name in task.names}
    return found, quantile(least_ttfts(trace, fleet), 0.99)


def tasks(options: argparse.Namespace) -> list[Task]:
    """Return what is to be run."""
    folder = options.traces
    kept = [name for name, file in RECORDED.items() if (folder / file).exists()]
    names = options.requests or [*RATES, *kept]
    who = tuple(options.only or EVERYBODY)
    return [
        Task(name, fleet, load, options.first_seed + part, part, options.seeds, str(folder), who)
        for fleet in options.fleet or FLEETS
        for load in options.load or LOADS
        for name in names
        for part in range(options.seeds)
    ]


def cells(wanted: Sequence[Task], workers: int) -> Iterator[Cell]:
    """Run the tasks in processes side by side; yield each cell when it is whole."""
    with ProcessPoolExecutor(workers) as pool:
        found = zip(wanted, pool.map(run, wanted), strict=True)
        for task, (first, floor) in found:
            rows, floors = {name: [each] for name, each in first.items()}, [floor]
            for _ in range(task.parts - 1):
                _, (more, least) = next(found)
                floors.append(least)
                for name, each in more.items():
                    rows[name].append(each)
            yield Cell(task.requests, task.fleet, task.load, rows, floors)


def line(cell: Cell) -> list[str]:
    """Return the columns of a cell: everybody's p99, then the comparisons."""
    p99s = (estimate([each.ttft99 for each in cell.figures[name]]) for name in EVERYBODY)
    best, least = cell.ratio(cell.best), cell.ratio("LeastRequests")
    return [
        f"{cell.requests} {cell.fleet} {cell.load:g}",
        *(f"{p99.mean:.2f} ±{p99.within:.2f}" for p99 in p99s),
        f"{best.mean:.2f} ±{best.within:.2f} {cell.best}",
        f"{least.mean:.2f} ±{least.within:.2f}",
        f"{cell.oracle():.2f}",
        f"{cell.floor():.2f}",
        cell.verdict() + (" (asked)" if cell.has_to_be_better() else ""),
    ]


COMPARED = ["against the best", "against LeastRequests", "oracle against the best", "floor", "verdict"]
HEAD = ["requests, fleet, load", *EVERYBODY, *COMPARED]


def summary(found: Sequence[Cell]) -> list[str]:
    """Return the table of docs/simulator.md: p99, against the best peer, oracle and floor, for each fleet.

    Bold is better by a tenth; what is level or worse says so.
    """
    at = {(cell.requests, cell.load, cell.fleet): cell for cell in found}
    settings = dict.fromkeys((cell.requests, cell.load) for cell in found)
    columns = (": p99 s", ", ratio", ", oracle", ", floor")
    rows = [["requests", "load"] + [f"{fleet}{what}" for fleet in FLEETS for what in columns]]
    rows.append(["---"] * len(rows[0]))
    for requests_of, load in settings:
        cells_of = [part for fleet in FLEETS for part in _parts(at[requests_of, load, fleet])]
        rows.append([requests_of, f"{load:g}", *cells_of])
    return [f"| {' | '.join(row)} |" for row in rows]


def _parts(cell: Cell) -> list[str]:
    p99, ratio, verdict = estimate([each.ttft99 for each in cell.figures[OURS]]), cell.ratio(cell.best), cell.verdict()
    shown = f"{ratio.mean:.2f} ±{ratio.within:.2f}"
    words = {"tenth": f"**{shown}**", "better": shown}.get(verdict, f"{shown} ({verdict})")
    return [f"{p99.mean:.2f}", f"{words} {cell.best}", f"{cell.oracle():.2f}", f"{cell.floor():.2f}"]


def rounded(value: object) -> object:
    """Return the same value with its floats to four places."""
    return json.loads(json.dumps(value), parse_float=lambda digits: round(float(digits), 4))


def kept() -> list[Cell]:
    """Return the cells of the last results."""
    path = RESULTS / "strategies.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    return [
        Cell(**row | {"figures": {name: [Figures(**one) for one in each] for name, each in row["figures"].items()}})
        for row in rows
    ]


def in_order(found: Sequence[Cell]) -> list[Cell]:
    """Return the latest cell of each setting, in the order of the grid."""
    fleets, names = list(FLEETS), [*RATES, *RECORDED]
    latest = {(fleets.index(cell.fleet), cell.load, names.index(cell.requests)): cell for cell in found}
    return [latest[key] for key in sorted(latest)]


def completed(cell: Cell, last: Sequence[Cell]) -> Cell:
    """Return the cell with the figures of those who did not run this time, as they are in the last results."""
    setting = (cell.requests, cell.fleet, cell.load)
    figures_then = next((each.figures for each in last if (each.requests, each.fleet, each.load) == setting), {})
    return replace(cell, figures=figures_then | cell.figures)


def unknown_without_them(wanted: Sequence[Task], last: Sequence[Cell], seeds: int) -> str:
    """Return a setting that is wanted and of which the last results have not everybody's figures of so many seeds."""
    whole = {
        (cell.requests, cell.fleet, cell.load)
        for cell in last
        if cell.figures.keys() >= set(EVERYBODY) and all(len(each) == seeds for each in cell.figures.values())
    }
    settings = ((task.requests, task.fleet, task.load) for task in wanted)
    return next((f"{one[0]}, {one[1]}, {one[2]:g} with {seeds} seeds" for one in settings if one not in whole), "")


def write(done: Sequence[Cell]) -> None:
    """Write the results for programs and for people."""
    RESULTS.mkdir(exist_ok=True)
    cells_written = ",\n".join(json.dumps(rounded(asdict(cell))) for cell in done)
    (RESULTS / "strategies.json").write_text(f"[\n{cells_written}\n]\n")
    rows = [HEAD, ["---"] * len(HEAD), *(line(cell) for cell in done)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    (RESULTS / "strategies.md").write_text(f"TTFT p99 in seconds; see `bench/strategies.py`.\n\n{text}\n")


def main(arguments: list[str]) -> None:
    """Print one line a cell, then what was and was not reached."""
    parser = argparse.ArgumentParser(prog="bench strategies")
    parser.add_argument("--traces", type=Path, default=TRACES)
    parser.add_argument("--fleet", action="append", choices=FLEETS)
    parser.add_argument("--load", action="append", type=float)
    parser.add_argument("--requests", action="append", choices=[*RATES, *RECORDED])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1000, help="seeds below were used to choose constants")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--only", action="append", choices=EVERYBODY)
    options = parser.parse_args(arguments)
    last = kept() if options.add or options.only else []
    if options.only and (missing := unknown_without_them(tasks(options), last, options.seeds)):
        parser.error(f"--only keeps the figures of all others, but the last results have none of {missing}")
    done = [cell for cell in last if cell.figures.keys() >= set(EVERYBODY)]
    for found in cells(tasks(options), options.workers):
        cell = completed(found, last)
        name, ours, *_, best, least, oracle, floor, verdict = line(cell)
        print(f"{name:<26}{ours:>14}  {best:<32}{least:<13}{oracle:<6}{floor:<6}{verdict}", flush=True)
        done = in_order([*done, cell])
        write(done)
    whole = len(done) == len(FLEETS) * len({(cell.requests, cell.load) for cell in done})
    print("\n".join(["", *summary(done), ""]) if whole else "")
    asked = [cell for cell in done if cell.has_to_be_better()]
    print(f"a tenth better than the best peer: {sum(c.verdict() == 'tenth' for c in asked)} of {len(asked)} asked for")
    print(f"worse than the best peer: {sum(c.verdict() == 'worse' for c in done)} of {len(done)}")


if __name__ == "__main__":
    main(sys.argv[1:])
