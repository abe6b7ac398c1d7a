"""What the index of prefixes costs when it is full: `python -m bench prefix`. A million blocks at twenty endpoints.

Prompts of 48 KB are 94 blocks of 128 tokens. Memory is the growth of this process; times are CPU, the means of many.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import cycle
from random import Random
from time import process_time

from bench.marks import Mark, show

from tailrace.core.endpoint import Endpoint
from tailrace.core.prefix import PrefixIndex

BLOCKS = 1_000_000
ENDPOINTS = 20
PROMPT_BLOCKS = 94
PROMPTS = 2_000
PAGE = 4096
MOST_BYTES = 170.0


def prompts(rng: Random, count: int) -> list[tuple[int, ...]]:
    """Return chains that share nothing."""
    return [tuple(rng.getrandbits(62) for _ in range(PROMPT_BLOCKS)) for _ in range(count)]


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - no file, a reading
        return int(statm.read().split()[1]) * PAGE


def mean_microseconds(do: Callable[[tuple[int, ...]], object], chains: list[tuple[int, ...]]) -> float:
    """Return the CPU time of doing it with one chain."""
    start = process_time()
    for chain in chains:
        do(chain)
    return (process_time() - start) / len(chains) * 1e6


def main() -> None:
    """Fill the index, then note and ask."""
    rng = Random(1)
    endpoints = [Endpoint(f"e{n}", address="", capacity=64, gpu_memory_gb=80, added=n) for n in range(ENDPOINTS)]
    index = PrefixIndex(BLOCKS)
    turns = cycle(endpoints)
    before = resident()
    while len(index) < BLOCKS * 0.9:
        for chain in prompts(rng, 500):
            index.note(next(turns), chain)
    each = (resident() - before) / len(index)
    chains = prompts(rng, PROMPTS)
    noted = mean_microseconds(lambda chain: index.note(next(turns), chain), chains)
    again = mean_microseconds(lambda chain: index.note(endpoints[0], chain), chains[::ENDPOINTS])
    asked = mean_microseconds(lambda chain: (index.holders(chain), index.match(endpoints[0], chain)), chains)
    print(f"{len(index):,} blocks at {ENDPOINTS} endpoints, prompts of {PROMPT_BLOCKS} blocks")
    show(
        [
            Mark("memory of a block", each, MOST_BYTES, "B"),
            Mark("noting a new prompt", noted, None, "us"),
            Mark("noting one that is known", again, None, "us"),
            Mark("asking who has it, and how much one has", asked, None, "us"),
        ]
    )


if __name__ == "__main__":
    main()
