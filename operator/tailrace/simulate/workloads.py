"""Requests made by chance, each kind to ask one question of a strategy. Every one is determined by its seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

from tailrace.simulate.trace import Arrival, Trace

BLOCK_TOKENS = 128
WARM_UP = 300.0
"""Conversations begin so many seconds before the first request, so that there are old and new ones from the start."""


class _Blocks:
    """Ids of blocks that no two prompts share."""

    def __init__(self) -> None:
        self._next = count(1)

    def fresh(self, tokens: int) -> tuple[int, ...]:
        return tuple(next(self._next) for _ in range(tokens // BLOCK_TOKENS))


def no_sharing(rng: Random, seconds: float, rate: float) -> Iterator[Arrival]:
    """Prompts that have nothing in common, of very different lengths."""
    blocks = _Blocks()
    for at in _poisson(rng, seconds, rate):
        prompt = _length(rng, 1500, 1.0)
        yield Arrival(at, prompt, _length(rng, 200, 0.8), blocks.fresh(prompt))


def system_prompt(rng: Random, seconds: float, rate: float) -> Iterator[Arrival]:
    """Everybody shares one system prompt of 2,048 tokens, and nothing else."""
    blocks = _Blocks()
    shared = blocks.fresh(2048)
    for at in _poisson(rng, seconds, rate):
        own = _length(rng, 1000, 1.0)
        yield Arrival(at, 2048 + own, _length(rng, 200, 0.8), shared + blocks.fresh(own))


def hot_prefix(rng: Random, seconds: float, rate: float) -> Iterator[Arrival]:
    """Fifty documents of 8,192 tokens are asked about, half the time the same one."""
    blocks = _Blocks()
    documents = [blocks.fresh(8192) for _ in range(50)]
    for at in _poisson(rng, seconds, rate):
        document = documents[0] if rng.random() < 0.5 else rng.choice(documents)
        own = _length(rng, 200, 0.5)
        yield Arrival(at, 8192 + own, _length(rng, 200, 0.8), document + blocks.fresh(own))


def bursts(rng: Random, seconds: float, rate: float) -> Iterator[Arrival]:
    """One prompt in four alone; the others in bursts of thirty that share 4,096 tokens."""
    blocks = _Blocks()
    arrivals: list[Arrival] = []
    for at in _poisson(rng, seconds, rate / 4):
        own = _length(rng, 1500, 1.0)
        arrivals.append(Arrival(at, own, _length(rng, 200, 0.8), blocks.fresh(own)))
    for begin in _poisson(rng, seconds, rate * 3 / 4 / 30):
        shared = blocks.fresh(4096)
        for _ in range(30):
            own = _length(rng, 300, 0.5)
            arrivals.append(
                Arrival(begin + rng.random(), 4096 + own, _length(rng, 200, 0.8), shared + blocks.fresh(own))
            )
    yield from sorted(arrivals, key=lambda arrival: arrival.at)


def sessions(rng: Random, seconds: float, rate: float) -> Iterator[Arrival]:
    """Conversations of eight turns on average, each with all that was said before; ten tenants' system prompts."""
    blocks = _Blocks()
    tenants = [blocks.fresh(1024) for _ in range(10)]
    arrivals: list[Arrival] = []
    for number, begin in enumerate(_poisson(rng, WARM_UP + seconds, rate / 8)):
        for turn in _conversation(rng, begin - WARM_UP, blocks, rng.choice(tenants), f"session-{number}"):
            if turn.at >= seconds:
                break
            if turn.at >= 0:
                arrivals.append(turn)
    yield from sorted(arrivals, key=lambda arrival: arrival.at)


def _conversation(rng: Random, at: float, blocks: _Blocks, chain: tuple[int, ...], session: str) -> Iterator[Arrival]:
    while True:
        own, output = _length(rng, 300, 1.0), _length(rng, 200, 0.8)
        chain += blocks.fresh(own)
        yield Arrival(at, len(chain) * BLOCK_TOKENS + own % BLOCK_TOKENS + 1, output, chain, session)
        if rng.random() < 1 / 8:
            return
        chain += blocks.fresh(output)
        at += 5.0 + rng.expovariate(1 / 20)


def _poisson(rng: Random, seconds: float, rate: float) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


def _length(rng: Random, middle: int, spread: float) -> int:
    """Return a length: half are above ``middle``, and one in six more than e ** spread times that."""
    return max(1, min(60_000, round(middle * rng.lognormvariate(0.0, spread))))


WORKLOADS: dict[str, Callable[[Random, float, float], Iterator[Arrival]]] = {
    "no-sharing": no_sharing,
    "system-prompt": system_prompt,
    "hot-prefix": hot_prefix,
    "bursts": bursts,
    "sessions": sessions,
}


def generate(name: str, seed: int, *, seconds: float, rate: float) -> Trace:
    """Return the requests of a workload: so many a second on average for so long."""
    rng = Random(seed)  # noqa: S311 - a reproducible simulation, not a secret
    return Trace(tuple(WORKLOADS[name](rng, seconds, rate)), BLOCK_TOKENS)
