"""How far simulations are from real runs: `python -m bench simulated`, two minutes.

The same requests, conversations of ten tenants, go through four `tailrace model-server`, one of them at half the speed,
behind `tailrace serve`; and through the simulator. Both are what they are for users: HTTP, streams, clocks, and two
cores for everything on one side, and no time at all on the other. Answers are short, so that the cores suffice.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import orjson
from bench.load import Connection, post
from bench.process import cores, started, wait_for_port
from tests.cluster.ports import free_ports

from tailrace.simulate.engine import Hardware
from tailrace.simulate.run import simulate
from tailrace.simulate.study import quantile
from tailrace.simulate.trace import Arrival, Trace
from tailrace.simulate.workloads import BLOCK_TOKENS, generate

STRATEGIES = ("LeastRequests", "LeastEstimatedTTFT")
SECONDS, RATE, SEED = 50.0, 7.0, 2000
MOST_OUTPUT = 40
SLOTS = 64
TOKENS = 1_000_000
USUAL = Hardware(slots=SLOTS, kv_tokens=TOKENS, cache_tokens=TOKENS)
FLEET = (replace(USUAL, speed=0.5), USUAL, USUAL, USUAL)
BYTES_PER_TOKEN = 4
LEAD_SECONDS = 1.0

DOCUMENT = """
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {{name: demo}}
spec:
  models: [{{name: demo}}]
  loadBalancing: {{strategy: {strategy}, longPromptTokens: 1000000}}
  endpoints:
"""


def requests() -> Trace:
    """Return the requests of either side."""
    made = generate("sessions", SEED, seconds=SECONDS, rate=RATE)
    return Trace(
        tuple(replace(each, output=min(each.output, MOST_OUTPUT)) for each in made.arrivals), made.block_tokens
    )


def body(arrival: Arrival) -> bytes:
    """Return a request whose prompt has the arrival's blocks and tokens."""
    blocks = "".join(f"{block:>15} " * (BLOCK_TOKENS * BYTES_PER_TOKEN // 16) for block in arrival.chain)
    rest = f"{arrival.at:.6f} ".ljust(BLOCK_TOKENS * BYTES_PER_TOKEN, ".")
    prompt = (blocks + rest)[: arrival.prompt * BYTES_PER_TOKEN]
    asked = {"model": "demo", "prompt": prompt, "max_tokens": arrival.output, "stream": True}
    return post("/v1/completions", orjson.dumps(asked | {"stream_options": {"include_usage": True}}))


def engine(port: int, hardware: Hardware) -> list[str]:
    """Return the command of one model server."""
    options = {
        "port": port,
        "max-num-seqs": hardware.slots,
        "prefill-tokens-per-second": hardware.prefill,
        "ttft-base-ms": hardware.base * 1e3,
        "itl-ms": hardware.itl * 1e3,
        "itl-growth": hardware.itl_growth,
        "kv-tokens": hardware.kv_tokens,
        "prefix-cache-tokens": hardware.cache_tokens,
        "speed": hardware.speed,
        "jitter": 0,
    }
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "tailrace", "model-server", *given]


@contextmanager
def fleet(strategy: str) -> Iterator[int]:
    """Run the engines and a proxy before them for the time of the block; yield the proxy's port."""
    *engines, proxy, routing, admin = free_ports(len(FLEET) + 3)
    measured, other = cores()
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for port, hardware in zip(engines, FLEET, strict=True):
            stack.enter_context(started(engine(port, hardware), other))
        file = Path(folder) / "server.yaml"
        addresses = "".join(f"  - {{address: '127.0.0.1:{port}', capacity: {SLOTS}}}\n" for port in engines)
        file.write_text(DOCUMENT.format(strategy=strategy) + addresses)
        ports = ("--proxy-port", str(proxy), "--routing-port", str(routing), "--admin-port", str(admin))
        stack.enter_context(started([sys.executable, "-m", "tailrace", "serve", "-f", str(file), *ports], measured))
        for port in (*engines, proxy):
            wait_for_port(port)
        yield proxy


async def real(port: int, trace: Trace) -> list[float]:
    """Send the requests when they are due; return the seconds until the first token of each."""
    loop = asyncio.get_running_loop()
    start = loop.time() + LEAD_SECONDS

    async def one(arrival: Arrival) -> float:
        request = body(arrival)
        await asyncio.sleep(start + arrival.at - loop.time())
        connection = await Connection.open(port)
        first = await connection.stream(request, lambda _: None)
        connection.close()
        return first

    return await asyncio.gather(*(one(arrival) for arrival in trace.arrivals))


def simulated(strategy: str, trace: Trace) -> list[float]:
    """Return the seconds until the first token of each request, simulated."""
    jobs = simulate(trace, FLEET, strategy, seed=SEED, capacity=SLOTS).jobs
    return [job.first_at - job.arrival.at for job in jobs if job.first_at is not None]


def figures(ttfts: Sequence[float]) -> list[float]:
    """Return mean and quantiles."""
    return [fmean(ttfts), *(quantile(ttfts, share) for share in (0.5, 0.9, 0.99))]


def main() -> None:
    """Print real and simulated figures, and how far they are from each other."""
    trace = requests()
    print(f"{len(trace.arrivals)} requests in {SECONDS:g} s; TTFT in seconds\n")
    print(f"{'':<34}{'mean':>8}{'p50':>8}{'p90':>8}{'p99':>8}")
    for strategy in STRATEGIES:
        with fleet(strategy) as port:
            seen = figures(asyncio.run(real(port, trace)))
        told = figures(simulated(strategy, trace))
        for side, values in (("real", seen), ("simulated", told)):
            print(f"{strategy:<22}{side:<12}" + "".join(f"{value:>8.3f}" for value in values))
        errors = (100 * (simulation / reality - 1) for simulation, reality in zip(told, seen, strict=True))
        print(f"{'':<22}{'error':<12}" + "".join(f"{error:>+7.1f}%" for error in errors), flush=True)


if __name__ == "__main__":
    main()
