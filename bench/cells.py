"""What is asked in a comparison of routers: cells of workload, engines and load, as requests ready to send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson
from bench.load import post

from tailrace.simulate.requests import source
from tailrace.simulate.trace import Arrival, Trace

PATH = "/v1/chat/completions"
MODEL = "demo"
BYTES_PER_TOKEN = 4
FIRST_SEED = 2000
"""Nothing was chosen by these requests: constants were chosen with other seeds."""
MOST_OUTPUT = 256
"""Longer answers are cut to so many tokens: what is compared is who is asked, not how fast this machine copies."""

RECORDED = "recorded"
PARTS = 10
"""Of a recorded trace: each repetition begins with another."""
RATES = {"no-sharing": 16.0, "system-prompt": 28.0, "hot-prefix": 28.0, "bursts": 16.0, "sessions": 18.0}
"""Requests a second that eight equal engines have to work for, without being overrun."""
COMPRESSION = {RECORDED: 8.0}
USUAL_COMPRESSION = 3.0
"""How many times faster than they would be engines and requests are: as fast as two cores can without being full."""
SHARES = {"equal": 1.0, "mixed": 7 / 8}
"""What a fleet can do against one of equal engines: a quarter of a mixed one runs at half the speed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Which requests, at which engines, at how many times the rate that these can just do."""

    workload: str
    fleet: str
    load: float
    trace: Path | None = None

    @property
    def name(self) -> str:
        """Return how the cell is called in tables and on the command line; recorded requests by their file."""
        workload = self.workload if self.trace is None else self.trace.stem
        return f"{workload}-{self.fleet}-{self.load:g}"

    @property
    def compression(self) -> float:
        """Return how many seconds of the engines pass in a second."""
        return COMPRESSION.get(self.workload, USUAL_COMPRESSION)


CELLS = (
    Cell(RECORDED, "equal", 1.3),
    Cell(RECORDED, "mixed", 1.3),
    Cell("system-prompt", "equal", 1.0),
    Cell("hot-prefix", "mixed", 1.0),
    Cell("bursts", "equal", 1.0),
    Cell("no-sharing", "mixed", 1.0),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send ``at`` so many seconds after the first; ``tokens`` is how long its answer must be."""

    at: float
    raw: bytes
    tokens: int


def requests(cell: Cell, repetition: int, *, seconds: float, salt: str) -> list[Ask]:
    """Return the requests of a repetition, ``seconds`` long; those of two salts share no beginning."""
    compression = cell.compression
    trace = _trace(cell, repetition, seconds * compression).faster(compression)
    return [_ask(arrival, trace.block_tokens, salt, number) for number, arrival in enumerate(trace.arrivals)]


def _trace(cell: Cell, repetition: int, seconds: float) -> Trace:
    rate = cell.load * SHARES[cell.fleet]
    if cell.trace is None:
        make = source(None, cell.workload, rate=RATES[cell.workload] * rate, seconds=seconds, parts=1)
        return make(FIRST_SEED + repetition)
    part = source(cell.trace, "", rate=1.0, seconds=0.0, parts=PARTS)((2 * repetition + 1) % PARTS)
    return part.faster(rate).between(0.0, seconds)


def _ask(arrival: Arrival, block_tokens: int, salt: str, number: int) -> Ask:
    tokens = min(arrival.output, MOST_OUTPUT)
    text = "".join(_text(arrival, block_tokens, salt, number))[: arrival.prompt * BYTES_PER_TOKEN]
    document = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    document |= {"stream": True, "stream_options": {"include_usage": True}}
    return Ask(arrival.at, post(PATH, orjson.dumps(document)), tokens)


def _text(arrival: Arrival, block_tokens: int, salt: str, number: int) -> Iterator[str]:
    """Yield the prompt: equal blocks are equal texts, and what no block stands for is like nothing else."""
    for block in arrival.chain:
        yield _letters(f"{salt}/{block}", block_tokens)
    yield _letters(f"{salt}/own/{number}", max(0, arrival.prompt - block_tokens * len(arrival.chain)))


def _letters(name: str, tokens: int) -> str:
    word = blake2b(name.encode(), digest_size=16).hexdigest()
    size = tokens * BYTES_PER_TOKEN
    return (word * (size // len(word) + 1))[:size]
