"""The rules of other routers, written anew from what they publish. They see engines as those routers do."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Protocol

from tailrace.simulate.engine import Engine
from tailrace.simulate.trace import Arrival


class Rule(Protocol):
    """Chooses for each request, and hears of its end."""

    def __call__(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """Return the number of the engine that gets the request."""
        ...

    def ended(self, arrival: Arrival, chosen: int) -> None:
        """Note that a request has ended."""
        ...


class _Stateless:
    """A rule to which ends mean nothing: the engines' own counts say it all."""

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        self._count = engines
        self._block_tokens = block_tokens
        self._rng = rng

    def ended(self, arrival: Arrival, chosen: int) -> None:
        """Nothing to note."""


class AtRandom(_Stateless):
    """Any one."""

    def __call__(self, arrival: Arrival, engines: Sequence[Engine]) -> int:  # noqa: ARG002 - chance looks at nothing
        """Return any one."""
        return self._rng.randrange(self._count)


class BoundedHash(_Stateless):
    """KubeAI's PrefixHash: consistent hashing of the first block, 256 points each, loads at most 125 % of the mean."""

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        super().__init__(engines, block_tokens, rng)
        self._ring = sorted((_hash(f"{engine}-{point}"), engine) for engine in range(engines) for point in range(256))

    def __call__(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """Return the first engine of the ring that is not too loaded."""
        most = 1.25 * (sum(engine.in_flight for engine in engines) + 1) / self._count
        start = bisect_left(self._ring, (_hash(str(arrival.chain[:1])),))
        for step in range(len(self._ring)):
            chosen = self._ring[(start + step) % len(self._ring)][1]
            if engines[chosen].in_flight + 1 <= max(1.0, most):
                return chosen
        return min(range(self._count), key=lambda number: engines[number].in_flight)


class CacheAware:
    """The cache-aware rule of the SGLang router and of vLLM's: cache unless loads differ too much.

    When the most loaded has 64 more and 1.5 times as many as the least: the shortest queue. Else the longest match, if
    it is at least half (``THRESHOLD``) of the prompt; else whoever has the smallest tree, that is, most room for new
    text. Trees forget the least recently used above ``MOST_BLOCKS`` tokens.
    """

    THRESHOLD = 0.5
    MOST_TOKENS = 2**24

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        del rng
        self._trees: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(engines)]
        self._most = self.MOST_TOKENS // block_tokens

    def __call__(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """Return the engine, and note that it will have the prompt."""
        loads = [engine.in_flight for engine in engines]
        chosen = loads.index(min(loads)) if self._unbalanced(loads) else self._by_cache(arrival.chain)
        tree = self._trees[chosen]
        for block in reversed(arrival.chain):
            tree[block] = None
            tree.move_to_end(block)
        while len(tree) > self._most:
            tree.popitem(last=False)
        return chosen

    def ended(self, arrival: Arrival, chosen: int) -> None:
        """Nothing to note."""

    def _unbalanced(self, loads: Sequence[int]) -> bool:
        return max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads)

    def _by_cache(self, chain: tuple[int, ...]) -> int:
        matches = [_match(tree, chain) for tree in self._trees]
        if chain and max(matches) / len(chain) > self.THRESHOLD:
            return matches.index(max(matches))
        sizes = [len(tree) for tree in self._trees]
        return sizes.index(min(sizes))


class WeightedScorers(_Stateless):
    """llm-d's scheduler: prefix x 3 + queue x 2 + KV x 2, each from 0 to 1, the highest sum wins, ties by chance.

    It reads queue and KV cache from the engines, here without delay, and keeps an index of prefixes of its own.
    """

    MOST_TOKENS = 31_250 * 64
    """Tokens noted for each engine: its default of blocks."""

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        super().__init__(engines, block_tokens, rng)
        self._notes: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(engines)]

    def __call__(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """Return the engine, and note that it will have the prompt."""
        queues = [engine.waiting for engine in engines]
        least, most = min(queues), max(queues)
        scores = [
            3.0 * _match(notes, arrival.chain) / max(1, len(arrival.chain))
            + 2.0 * ((most - queue) / (most - least) if most > least else 1.0)
            + 2.0 * (1.0 - engine.kv_usage)
            for notes, queue, engine in zip(self._notes, queues, engines, strict=True)
        ]
        best = max(scores)
        chosen = self._rng.choice([number for number, score in enumerate(scores) if score >= best - 1e-9])
        for block in reversed(arrival.chain):
            self._notes[chosen][block] = None
            self._notes[chosen].move_to_end(block)
        while len(self._notes[chosen]) > self.MOST_TOKENS // self._block_tokens:
            self._notes[chosen].popitem(last=False)
        return chosen


def _match(known: OrderedDict[int, None], chain: tuple[int, ...]) -> int:
    for depth, block in enumerate(chain):
        if block not in known:
            return depth
    return len(chain)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


PEERS: dict[str, Callable[[int, int, Random], Rule]] = {
    "random": AtRandom,
    "kubeai-prefix-hash": BoundedHash,
    "sglang-cache-aware": CacheAware,
    "llm-d-scorers": WeightedScorers,
}
"""Round robin, least requests, least connections and power of two are the core's own strategies of these names."""
