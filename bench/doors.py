"""What the doors cost: `python -m bench doors`. Tailrace beside a minimal Python proxy and nginx, in one run.

What is measured runs alone on one core; the engines, the load and this program on another. CPU is user and kernel
time of the process and its children. Rates of a shared machine mean little, so every figure is CPU per operation or a
difference within the run: chunks are **paced** as engines send them, because a flood is coalesced and flatters.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import quantiles

import orjson
import uvloop
from bench.load import Connection, Streams, ask_all, post
from bench.marks import Mark, show
from bench.peers import nginx
from bench.process import TICK, cores, cpu_seconds, family, rss_kib, started, wait_for_port
from tests.cluster.ports import free_ports

ENGINES = 2
CONNECTIONS = 16
STREAMS = 64
CHUNKS_PER_SECOND = 20
IDLE_STREAMS = 500
WARM_UP = 1_000
REQUESTS = 15_000
LEASES = 15_000
CHUNK_SECONDS = 8.0
FIRST_SECONDS = 6.0
SPREAD_SECONDS = 1.0
SETTLE_SECONDS = 0.5

PATH = "/v1/chat/completions"
ASKED = {"model": "demo", "messages": [{"role": "user", "content": "Say something short about the weather. " * 10}]}
PACE = f"{1 / CHUNKS_PER_SECOND:g}"
SMALL = post(PATH, orjson.dumps(ASKED))
STREAM_BODY = orjson.dumps(ASKED)[:-1] + b', "stream": true}'
LONG = post(PATH, STREAM_BODY, x_chunks="1000000", x_pace=PACE)
SHORT = post(PATH, STREAM_BODY, x_chunks="10", x_pace=PACE)
IDLE = post(PATH, STREAM_BODY, x_chunks="2", x_pace="3600")
ROUTE = post("/route", orjson.dumps({"model": "leased", "messages": ASKED["messages"]}))

DOCUMENTS = """
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {{name: {name}}}
spec:
  models: [{{name: {name}}}]
  endpoints:
"""

MARKS = {
    "request": ("proxy: CPU of a small request", 82.0, "us"),
    "chunk": ("proxy: CPU of a paced chunk", 25.0, "us"),
    "added99": (f"proxy: added time to the first chunk, p99 at {STREAMS} streams", 1.0, "ms"),
    "memory": ("proxy: memory of an idle stream", 20.0, "KiB"),
    "route": ("/route: CPU of a request", 20.0, "us"),
    "complete": ("/complete: CPU of a request", None, "us"),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One proxy's: microseconds of CPU, milliseconds until the first chunk, KiB."""

    request: float
    chunk: float
    first50: float
    first99: float
    memory: float


def documents(engines: list[str]) -> str:
    """Return what `tailrace serve` serves: the engines, and addresses that nobody calls to take leases on."""
    served = {"demo": engines, "leased": [f"127.0.1.{number + 1}:8000" for number in range(2 * LEASES // 1000)]}
    parts = (
        DOCUMENTS.format(name=name) + "".join(f"  - {{address: '{one}', capacity: 1000}}\n" for one in addresses)
        for name, addresses in served.items()
    )
    return "---".join(parts)


def timed(pids: list[int]) -> Callable[[], float]:
    """Return what tells the CPU seconds of these processes since now."""
    before = cpu_seconds(pids)
    return lambda: cpu_seconds(pids) - before


async def per_request(port: int, pids: list[int], requests: Iterator[bytes], count: int) -> tuple[float, list[bytes]]:
    """Return microseconds of CPU a request, and the answers."""
    spent = timed(pids)
    bodies = await ask_all(port, requests, CONNECTIONS)
    assert len(bodies) == count
    return spent() / count * 1e6, bodies


async def per_chunk(port: int, pids: list[int]) -> float:
    """Return microseconds of CPU for one chunk of a stream among many."""
    streams = Streams(port, LONG, STREAMS)
    await streams.start(over=SPREAD_SECONDS)
    await streams.go_on(SETTLE_SECONDS)
    spent, before = timed(pids), streams.events
    await streams.go_on(CHUNK_SECONDS)
    cost, events = spent(), streams.events - before
    await streams.stop()
    assert events > CHUNK_SECONDS * STREAMS * CHUNKS_PER_SECOND * 0.9, (
        f"only {events} chunks came: the load is too slow"
    )
    return cost / events * 1e6


async def until_first(port: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of milliseconds until a stream's first chunk, among many streams."""
    streams = Streams(port, SHORT, STREAMS)
    await streams.start(over=SPREAD_SECONDS)
    await streams.go_on(SETTLE_SECONDS)
    streams.first.clear()
    await streams.go_on(FIRST_SECONDS)
    percentiles = quantiles(streams.first, n=100)
    await streams.stop()
    return percentiles[49] * 1e3, percentiles[98] * 1e3


async def per_idle_stream(port: int, pids: list[int]) -> float:
    """Return KiB of resident memory that a stream takes while nothing comes."""
    before = rss_kib(pids)
    connections = [await Connection.open(port) for _ in range(IDLE_STREAMS)]
    for connection in connections:
        await connection.begin(IDLE)
    await asyncio.sleep(SETTLE_SECONDS)
    taken = rss_kib(pids) - before
    for connection in connections:
        connection.close()
    await asyncio.sleep(SETTLE_SECONDS)
    return taken / IDLE_STREAMS


async def measure(port: int, pid: int) -> Figures:
    """Measure one proxy; memory first, before other work has left pages to use again."""
    pids = family(pid)
    await ask_all(port, iter([SMALL] * WARM_UP), CONNECTIONS)
    memory = await per_idle_stream(port, pids)
    request, _ = await per_request(port, pids, repeat(SMALL, REQUESTS), REQUESTS)
    chunk = await per_chunk(port, pids)
    first50, first99 = await until_first(port)
    return Figures(request, chunk, first50, first99, memory)


async def measure_routing(port: int, pid: int) -> tuple[float, float]:
    """Return microseconds of CPU of /route and of /complete."""
    pids = family(pid)
    warm = await ask_all(port, iter([ROUTE] * WARM_UP), CONNECTIONS)
    await ask_all(port, map(completion, warm), CONNECTIONS)
    route, bodies = await per_request(port, pids, repeat(ROUTE, LEASES), LEASES)
    complete, _ = await per_request(port, pids, map(completion, bodies), LEASES)
    return route, complete


def completion(routed: bytes) -> bytes:
    """Return the request that ends what this answer of /route has begun."""
    return post(f"/complete/{orjson.loads(routed)['request']}")


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Run what is measured on its core; yield its process id when it listens."""
    with started(command, cores()[0]) as pid:
        wait_for_port(port)
        yield pid


def row(name: str, figures: Figures, direct: tuple[float, float]) -> str:
    """Return a proxy's line of the table; the engine's own time to the first chunk is subtracted."""
    added = f"{figures.first50 - direct[0]:.2f} / {figures.first99 - direct[1]:.2f}"
    return f"{name:<26}{figures.request:>10.0f}{figures.chunk:>10.1f}{added:>20}{figures.memory:>12.1f}"


def tailrace(folder: Path, engines: list[str], direct: tuple[float, float]) -> dict[str, float]:
    """Measure `tailrace serve`; print its line and return what the marks are about."""
    file = folder / "servers.yaml"
    file.write_text(documents(engines))
    proxy, routing, admin = free_ports(3)
    ports = (f"--proxy-port={proxy}", f"--routing-port={routing}", f"--admin-port={admin}")
    with running([sys.executable, "-m", "tailrace", "serve", "-f", str(file), *ports], admin) as pid:
        figures = uvloop.run(measure(proxy, pid))
        print(row("tailrace serve", figures, direct), flush=True)
        route, complete = uvloop.run(measure_routing(routing, pid))
    found = {"request": figures.request, "chunk": figures.chunk, "memory": figures.memory}
    return found | {"added99": figures.first99 - direct[1], "route": route, "complete": complete}


def peers(folder: Path, engines: list[str]) -> Iterable[tuple[str, int, list[str] | None]]:
    """Yield the others: name, port and command, None when this machine does not have it."""
    minimal, other = free_ports(2)
    urls = [f"http://{engine}" for engine in engines]
    yield "minimal aiohttp + uvloop", minimal, [sys.executable, "-m", "bench.peers.minimal", str(minimal), *urls]
    yield "nginx", other, nginx.command(folder, other, engines)


def main() -> None:
    """Print one line a proxy, then the marks."""
    began = time.monotonic()
    measured, other = cores()
    os.sched_setaffinity(0, {other})
    if measured == other:
        print("only one core: load and proxy share it, so times to the first chunk mean nothing")
    ports = free_ports(ENGINES)
    engines = [f"127.0.0.1:{port}" for port in ports]
    command = [sys.executable, "-m", "bench.peers.backend", *map(str, ports)]
    with tempfile.TemporaryDirectory() as name, started(command, other):
        folder = Path(name)
        wait_for_port(ports[-1])
        direct = uvloop.run(until_first(ports[0]))
        print(
            f"CPU microseconds; {STREAMS} streams of {CHUNKS_PER_SECOND} chunks a second; {TICK * 1e3:g} ms CPU clock"
        )
        print(f"{'proxy':<26}{'a request':>10}{'a chunk':>10}{'added ms p50 / p99':>20}{'KiB/stream':>12}")
        found = tailrace(folder, engines, direct)
        for peer, port, peer_command in peers(folder, engines):
            if peer_command is None:
                print(f"{peer:<26}is not installed here: left out")
                continue
            with running(peer_command, port) as pid:
                print(row(peer, uvloop.run(measure(port, pid)), direct), flush=True)
    show(Mark(what, found[key], limit, unit) for key, (what, limit, unit) in MARKS.items())
    print(
        f"\nthe engine alone, to the first chunk: {direct[0]:.2f} / {direct[1]:.2f} ms; "
        f"{time.monotonic() - began:.0f} s in all"
    )


if __name__ == "__main__":
    main()
