"""Real routers side by side: `make bench-routing`, or `python -m bench routing`. The same requests through all of them.

Tailrace, vllm-router, sglang-router, smg and nginx, each alone on one core in front of the same eight engines
(`tailrace model-server`: prefill queue, batching, prefix cache), which share the other core with the load. Engines and
requests run several times faster than real ones would; figures are given in the engines' time. Cells are repeated with
other requests, and in each repetition all routers are given the same ones, in another order of routers.

Every run is kept in results/routing.json as it ends, and is not made again: `--budget` says for how many seconds new
runs are begun, so that a long comparison can be made in parts. `--trace FILE` (Mooncake's or Azure's format) is needed
for the cells of recorded requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import uvloop
from bench.cells import CELLS, RECORDED, Ask, Cell, requests
from bench.contest import Record, Run, measured, tables
from bench.fleet import ENGINES, PROFILE, Fleet, document, engines
from bench.peers import nginx
from bench.peers.routers import PEERS, POLICIES, UnavailableError
from bench.process import TICK, cores, cpu_seconds, family, started, wait_for_port
from bench.replay import Answer, Ended, Replay
from tests.cluster.ports import free_ports

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "Tailrace LeastEstimatedTTFT"
STRATEGIES = ("WeightedLeastConnections", "LeastEstimatedTTFT")
PATIENCE_SECONDS = 20.0
START_SECONDS = 30.0
SETTLE_SECONDS = 0.3

Start = Callable[[Path, Fleet, int], list[str]]
"""(folder, engines, port) -> how to start a router; UnavailableError when it cannot be."""


def tailrace(strategy: str) -> Start:
    """Return how to start Tailrace with a strategy."""

    def command(folder: Path, fleet: Fleet, port: int) -> list[str]:
        file = folder / "servers.yaml"
        file.write_text(document(fleet.addresses, strategy))
        routing, admin = free_ports(2)
        ports = (f"--proxy-port={port}", f"--routing-port={routing}", f"--admin-port={admin}")
        return [sys.executable, "-m", "tailrace", "serve", "-f", str(file), *ports]

    return command


def peer(name: str, policy: str) -> Start:
    """Return how to start another router with one of its policies."""
    return lambda _, fleet, port: PEERS[name].command(policy, port, free_ports(1)[0], fleet.addresses)


def least_conn(folder: Path, fleet: Fleet, port: int) -> list[str]:
    """Return how to start nginx."""
    command = nginx.command(folder, port, list(fleet.addresses))
    if command is None:
        raise UnavailableError("nginx is not on the PATH")
    return command


ROUTERS: dict[str, Start] = {
    **{f"Tailrace {strategy}": tailrace(strategy) for strategy in STRATEGIES},
    **{f"{name} {shown}": peer(name, policy) for name in PEERS for shown, policy in POLICIES.items()},
    "nginx least_conn": least_conn,
}


class Contest:
    """The runs that are wanted, at engines that run."""

    def __init__(self, fleet: Fleet, record: Record, options: argparse.Namespace, core: int, other: int) -> None:
        self._fleet = fleet
        self._record = record
        self._options = options
        self._core = core
        self._other = other

    def run(self) -> None:
        """Make the runs that are missing, while there is time."""
        ends = time.monotonic() + self._options.budget
        for cell, router, repetition in self._wanted():
            if time.monotonic() > ends:
                print("the budget is spent; the same command goes on from here", file=sys.stderr)
                return
            if router not in self._record.unavailable:
                self._attempt(cell, router, repetition)

    def _wanted(self) -> Iterator[tuple[Cell, str, int]]:
        for repetition in range(self._options.repetitions):
            for cell in self._options.cells:
                order = list(self._options.routers)
                Random(f"{cell.name}/{repetition}").shuffle(order)
                for router in order:
                    if not self._record.has(cell.name, router, repetition):
                        yield cell, router, repetition

    def _attempt(self, cell: Cell, router: str, repetition: int) -> None:
        try:
            run = self._measure(cell, router, repetition)
        except (UnavailableError, TimeoutError, ConnectionError) as error:
            self._record.unavailable[router] = str(error)
            print(f"{router} is left out: {error}", file=sys.stderr)
        else:
            self._record.add(run)
            said = f"TTFT p99 {run.ttft99:.2f} s, lost {run.lost}, shed {run.shed}, late {run.late * 1e3:.0f} ms"
            print(f"{cell.name} {repetition} {router}: {said}, idle {run.idle}", file=sys.stderr)

    def _measure(self, cell: Cell, router: str, repetition: int) -> Run:
        self._fleet.set_speed(cell.compression, mixed=cell.fleet == "mixed")
        salt = f"{router}/{time.time_ns()}"  # nothing in the engines' caches is of any use to it
        asks = requests(cell, repetition, seconds=self._options.seconds, salt=salt)
        with self._running(router) as (port, pid):
            uvloop.run(until_it_serves(port, _first_asks(salt)))
            pids = family(pid)
            before, watch = cpu_seconds(pids), Idle(self._core, self._other)
            began = time.monotonic()
            answers = uvloop.run(replayed(port, asks))
            seconds = time.monotonic() - began
            return measured(
                cell.name,
                router,
                repetition,
                answers,
                compression=cell.compression,
                seconds=seconds,
                cpu_seconds=cpu_seconds(pids) - before,
                idle=watch.shares(),
            )

    @contextmanager
    def _running(self, router: str) -> Iterator[tuple[int, int]]:
        """Run a router on its core; yield its port and process id."""
        (port,) = free_ports(1)
        with tempfile.TemporaryDirectory() as folder:
            command = ROUTERS[router](Path(folder), self._fleet, port)
            with started(command, self._core) as pid:
                wait_for_port(port)
                yield port, pid


class Idle:
    """How much of each core was left since it was made: idle, or given to work of lower priority."""

    def __init__(self, *watched: int) -> None:
        self._watched = watched
        self._began = time.monotonic()
        self._before = _idle_seconds()

    def shares(self) -> tuple[float, float]:
        """Return the part of each core that was left."""
        now, seconds = _idle_seconds(), time.monotonic() - self._began
        first, second = (round((now[core] - self._before[core]) / seconds, 2) for core in self._watched)
        return first, second


def _idle_seconds() -> dict[int, float]:
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    by_core = (fields for fields in lines if fields[0].startswith("cpu") and fields[0] != "cpu")
    return {
        int(core[3:]): sum(map(int, (nice, idle, waiting))) * TICK for core, _, nice, _, idle, waiting, *_ in by_core
    }


def _first_asks(salt: str) -> list[Ask]:
    return requests(Cell("no-sharing", "equal", 0.1), 0, seconds=10.0, salt=f"{salt}/first")[:1]


async def until_it_serves(port: int, asks: list[Ask]) -> None:
    """Return when a router has answered a request; TimeoutError when it does not in time."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        (answer,) = await Replay(port).run([replace(ask, at=0.0) for ask in asks], PATIENCE_SECONDS)
        if answer.ended is Ended.WHOLE:
            await asyncio.sleep(SETTLE_SECONDS)
            return
        await asyncio.sleep(SETTLE_SECONDS)
    raise TimeoutError(f"it does not answer a request in {START_SECONDS:g} s")


async def replayed(port: int, asks: list[Ask]) -> list[Answer]:
    """Return what became of the requests."""
    return await Replay(port).run(asks, PATIENCE_SECONDS)


def arguments(given: list[str]) -> argparse.Namespace:
    """Return the options; a mistake ends the program with a message that says what there is."""
    parser = argparse.ArgumentParser(
        prog="make bench-routing", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="recorded requests")
    parser.add_argument(
        "--cells", default="", help=f"some of {', '.join(cell.name for cell in CELLS)}; with commas (default all)"
    )
    parser.add_argument("--routers", default="", help=f"some of {', '.join(ROUTERS)}; with commas (default all)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each cell (default 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default 10)")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds in which to begin runs")
    options = parser.parse_args(given)
    options.routers = _some(parser, options.routers, ROUTERS, "router")
    cells = {cell.name: cell for cell in CELLS}
    wanted = [cells[name] for name in _some(parser, options.cells, cells, "cell")]
    options.cells = [replace(cell, trace=options.trace) if cell.workload == RECORDED else cell for cell in wanted]
    if options.trace is None:
        options.cells = [cell for cell in wanted if cell.workload != RECORDED]
    return options


def _some(parser: argparse.ArgumentParser, text: str, known: Iterable[str], what: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",")] if text else list(known)
    for name in wanted:
        if name not in known:
            parser.error(f"no {what} {name!r}; there are: {', '.join(known)}")
    return wanted


def settings(options: argparse.Namespace) -> dict[str, object]:
    """Return what runs must have in common to be compared."""
    versions = {name: each.version for name, each in PEERS.items()}
    return {"seconds": options.seconds, "engines": ENGINES, "profile": PROFILE, "peers": versions}


def report(record: Record) -> None:
    """Print the tables, who was left out, and whether this machine kept up."""
    if not record.runs:
        print("no runs")
        return
    for line in tables(record.runs, list(ROUTERS), OURS):
        print(line)
    print()
    for router, why in record.unavailable.items():
        print(f"Left out: {router}: {why}.")
    idle = [min(run.idle[core] for run in record.runs) for core in (0, 1)]
    print(
        f"CPU left in the busiest run: {idle[0]:.0%} of the router's core, {idle[1]:.0%} of that of engines and load;"
    )
    print(f"requests were sent at most {max(run.late for run in record.runs):.2f} s late (p99 of the worst run).")


def main(given: list[str]) -> None:
    """Make the runs that are missing, and print the tables of all."""
    options = arguments(given)
    core, other = cores()
    os.sched_setaffinity(0, {other})
    if core == other:
        print("only one core: load, engines and router share it, so the figures mean little")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what ends engines and routers
    RESULTS.mkdir(exist_ok=True)
    record = Record(RESULTS / "routing.json", settings(options))
    with engines(other) as fleet:
        Contest(fleet, record, options, core, other).run()
    report(record)


if __name__ == "__main__":
    main(sys.argv[1:])
