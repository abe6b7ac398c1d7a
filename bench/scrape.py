"""What it costs to read 300 engines once a second: `python -m bench scrape`.

The engines are one process on 300 ports, which answers each with an exposition of vLLM's size. The scraper is the
router's own, with its core behind it. CPU time of this process over ten seconds, without the first two.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from random import Random
from time import monotonic, process_time
from typing import cast

import uvloop
from bench.marks import Mark, show

from tailrace.core.model import EndpointSpec, ModelSpec, PoolSettings, Reading, ServerSpec, Snapshot
from tailrace.core.router import Router
from tailrace.engines.scraper import Scraper

ENGINES = 300
WARM_SECONDS, SECONDS = 2.0, 10.0
MOST_PERCENT = 10.0
SERVE = "--serve"
LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-70B-Instruct"'
HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_params_max_tokens",
    "iteration_tokens_total",
)
BUCKETS = 22
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


def exposition() -> bytes:
    """Return what a vLLM server shows, in number and length of its lines."""
    lines = []
    for name in HISTOGRAMS:
        lines += [f"# HELP vllm:{name} Histogram of {name}.", f"# TYPE vllm:{name} histogram"]
        lines += [f'vllm:{name}_bucket{{{LABELS},le="{bucket}.0"}} {bucket * 17}.0' for bucket in range(BUCKETS)]
        lines += [f"vllm:{name}_count{{{LABELS}}} 374.0", f"vllm:{name}_sum{{{LABELS}}} 1234.5"]
    for name in GAUGES:
        lines += [f"# HELP vllm:{name} Gauge.", f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{LABELS}}} 0.5"]
    return ("\n".join(lines) + "\n").encode()


class Server(asyncio.Protocol):
    """Answers whatever it is asked with one body."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, _: bytes) -> None:
        self.transport.write(self.answer)


async def serve(engines: int) -> None:
    """Listen on that many ports, print them, and answer until the input closes."""
    body = exposition()
    Server.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Server, "127.0.0.1", 0) for _ in range(engines)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def routed(ports: list[int]) -> Router:
    """Return a router whose pool wants every engine to be read once a second."""
    made = Router("bench", booted_at=0.0, rng=Random(0))
    server = ServerSpec("ns/s", "ns", (ModelSpec("m"),), pool=PoolSettings("DynamicScore"))
    endpoints = [EndpointSpec(f"e-{p}", "ns/s", f"e-{p}", f"127.0.0.1:{p}", 64, ready=True) for p in ports]
    made.apply(Snapshot((server,), tuple(endpoints)), 0.0)
    return made


async def measure(ports: list[int]) -> tuple[float, float]:
    """Return the readings taken in a second, and the share of a core in percent that they took."""
    router = routed(ports)
    readings = 0

    def told(uid: str, reading: Reading) -> None:
        nonlocal readings
        readings += 1
        router.engine_told(uid, reading, monotonic())

    task = asyncio.create_task(Scraper(router.engines, told, Random(1)).run())
    await asyncio.sleep(WARM_SECONDS)
    before, began, at = readings, process_time(), monotonic()
    await asyncio.sleep(SECONDS)
    passed = monotonic() - at
    found = (readings - before) / passed, 100.0 * (process_time() - began) / passed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found


def main() -> None:
    """Start the engines, read them, print the marks."""
    if SERVE in sys.argv:
        uvloop.run(serve(ENGINES))
        return
    command = [sys.executable, "-m", "bench.scrape", SERVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engines:
        assert engines.stdout is not None
        ports = [int(port) for port in engines.stdout.readline().split()]
        rate, percent = uvloop.run(measure(ports))
        assert engines.stdin is not None
        engines.stdin.close()
    print(f"{ENGINES} engines once a second, {len(exposition()):,} bytes each")
    show(
        [
            Mark("readings a second", rate, None, ""),
            Mark("CPU, of one core", percent, MOST_PERCENT, "%"),
            Mark("CPU of one reading", percent / 100.0 / rate * 1e6, None, "us"),
        ]
    )


if __name__ == "__main__":
    main()
