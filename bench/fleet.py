"""The engines behind every router of a comparison: `tailrace model-server`, started once, told how fast to be."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import orjson
from bench.cells import MODEL
from bench.process import started, wait_for_port
from tests.cluster.ports import free_ports

ENGINES = 8
SLOW = 2
"""How many of them run at half the speed in a mixed fleet."""
SLOTS = 64
FASTEST = 8
PROFILE = {
    "max-num-seqs": SLOTS,
    "prefill-tokens-per-second": 8000,
    "itl-ms": 40,
    "kv-tokens": 1_000_000,
    "prefix-cache-tokens": 500_000,
    "jitter": 0.05,
}
ANSWER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Fleet:
    """Engines that run, by address."""

    addresses: tuple[str, ...]
    pids: tuple[int, ...]

    def set_speed(self, compression: float, *, mixed: bool) -> None:
        """Let so many of their seconds pass in a second."""
        for number, address in enumerate(self.addresses):
            slower = 2 if mixed and number < SLOW else 1
            _tell(address, {"slow": slower * FASTEST / compression})


@contextmanager
def engines(core: int) -> Iterator[Fleet]:
    """Run the engines on a core for the time of the block."""
    ports = free_ports(ENGINES)
    profile = [f"--{name}={value}" for name, value in PROFILE.items()]
    with ExitStack() as stack:
        pids = []
        for seed, port in enumerate(ports):
            where = [f"--port={port}", f"--model={MODEL}", f"--seed={seed}", f"--speed={FASTEST}", "--faults"]
            command = [sys.executable, "-m", "tailrace", "model-server", *where, *profile]
            pids.append(stack.enter_context(started(command, core)))
        for port in ports:
            wait_for_port(port)
        yield Fleet(tuple(f"127.0.0.1:{port}" for port in ports), tuple(pids))


def document(addresses: Sequence[str], strategy: str) -> str:
    """Return what `tailrace serve` serves: the engines under a strategy. It is not told which of them are slow."""
    document = {
        "apiVersion": "inference.tailrace.dev/v1alpha1",
        "kind": "InferenceServer",
        "metadata": {"name": MODEL},
        "spec": {
            "models": [{"name": MODEL}],
            "loadBalancing": {"strategy": strategy},
            "endpoints": [{"address": each, "capacity": SLOTS, "gpuMemoryGB": 80} for each in addresses],
        },
    }
    return orjson.dumps(document).decode()


def _tell(address: str, fault: dict[str, float]) -> None:
    request = urllib.request.Request(f"http://{address}/faults", orjson.dumps(fault), method="POST")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        answer.read()
