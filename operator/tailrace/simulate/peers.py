"""The rules of other routers, written anew from what they publish. They see engines as those routers do."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Protocol

from tailrace.simulate.engine import Engine
from tailrace.simulate.trace import Arrival


class Rule(Protocol):
    """Chooses for each request, and hears of its end."""

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:
        """Return the number of the engine that gets the request."""
        ...

    def began(self, arrival: Arrival, chosen: int) -> None:
        """Note that a request's first token has come."""
        ...

    def ended(self, arrival: Arrival, chosen: int) -> None:
        """Note that a request has ended."""
        ...


class _Unmoved:
    """A rule to which first tokens and ends mean nothing: the counts of requests in flight say it all."""

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        self._count = engines
        self._block_tokens = block_tokens
        self._rng = rng

    def began(self, arrival: Arrival, chosen: int) -> None:
        """Nothing to note."""

    def ended(self, arrival: Arrival, chosen: int) -> None:
        """Nothing to note."""


class AtRandom(_Unmoved):
    """Any one."""

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:  # noqa: ARG002 - chance
        """Return any one."""
        return self._rng.randrange(self._count)


class BoundedHash(_Unmoved):
    """KubeAI's PrefixHash: consistent hashing of the first block, 256 points each, loads at most 125 % of the mean."""

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        super().__init__(engines, block_tokens, rng)
        self._ring = sorted((_hash(f"{engine}-{point}"), engine) for engine in range(engines) for point in range(256))

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:  # noqa: ARG002 - no time
        """Return the first engine of the ring that is not too loaded."""
        most = 1.25 * (sum(engine.in_flight for engine in engines) + 1) / self._count
        start = bisect_left(self._ring, (_hash(str(arrival.chain[:1])),))
        for step in range(len(self._ring)):
            chosen = self._ring[(start + step) % len(self._ring)][1]
            if engines[chosen].in_flight + 1 <= max(1.0, most):
                return chosen
        return min(range(self._count), key=lambda number: engines[number].in_flight)


class CacheAware(_Unmoved):
    """The cache-aware rule of the SGLang router and of vLLM's: cache unless loads differ too much.

    When the most loaded has 64 more and 1.5 times as many as the least: the shortest queue. Else the longest match, if
    it is more than half (``THRESHOLD``) of the prompt; else whoever has the smallest tree, that is, most room for new
    text. Trees forget the least recently used above ``MOST_TOKENS``.
    """

    THRESHOLD = 0.5
    MOST_TOKENS = 2**24

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        super().__init__(engines, block_tokens, rng)
        self._trees: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(engines)]

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:  # noqa: ARG002 - no time
        """Return the engine, and note that it will have the prompt."""
        loads = [engine.in_flight for engine in engines]
        chosen = loads.index(min(loads)) if self._unbalanced(loads) else self._by_cache(arrival.chain, loads)
        _remember(self._trees[chosen], arrival.chain, self.MOST_TOKENS // self._block_tokens)
        return chosen

    def _unbalanced(self, loads: Sequence[int]) -> bool:
        return max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads)

    def _by_cache(self, chain: tuple[int, ...], loads: Sequence[int]) -> int:
        matches = [_match(tree, chain) for tree in self._trees]
        if chain and max(matches) / len(chain) > self.THRESHOLD:
            return matches.index(max(matches))
        return self._by_load(loads)

    def _by_load(self, loads: Sequence[int]) -> int:  # noqa: ARG002 - another one's rule looks at them
        sizes = [len(tree) for tree in self._trees]
        return sizes.index(min(sizes))


class CacheAwareLeastLoaded(CacheAware):
    """The rule of smg, the SGLang router's successor: a shorter match will do, and else the least loaded."""

    THRESHOLD = 0.3
    MOST_TOKENS = 2**26

    def _by_load(self, loads: Sequence[int]) -> int:
        return loads.index(min(loads))


class WeightedScorers(_Unmoved):
    """llm-d's scheduler: prefix x 3 + queue x 2 + KV x 2, each from 0 to 1, the highest sum wins, ties by chance.

    It reads queue and KV cache from the engines, as often as the endpoint picker does by default, and keeps an index of
    prefixes of its own, as large as an engine's cache (its ``autoTune``). The whole prompt is matched, though its
    default stops after 256 blocks: whoever has long prompts would change that.
    """

    SCRAPE_SECONDS = 0.05

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        super().__init__(engines, block_tokens, rng)
        self._notes: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(engines)]
        self._read_at = -self.SCRAPE_SECONDS
        self._gauges: list[tuple[int, float]] = []

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:
        """Return the engine, and note that it will have the prompt."""
        if now - self._read_at >= self.SCRAPE_SECONDS:
            self._read_at = now
            self._gauges = [(engine.waiting, engine.kv_usage) for engine in engines]
        scores = self._scores(arrival.chain)
        best = max(scores)
        chosen = self._rng.choice([number for number, score in enumerate(scores) if score >= best - 1e-9])
        _remember(self._notes[chosen], arrival.chain, engines[chosen].hardware.cache_tokens // self._block_tokens)
        return chosen

    def _scores(self, chain: tuple[int, ...]) -> list[float]:
        queues = [waiting for waiting, _ in self._gauges]
        least, most = min(queues), max(queues)
        return [
            3.0 * _match(notes, chain) / max(1, len(chain))
            + 2.0 * ((most - waiting) / (most - least) if most > least else 1.0)
            + 2.0 * (1.0 - usage)
            for notes, (waiting, usage) in zip(self._notes, self._gauges, strict=True)
        ]


class BlockCosts(_Unmoved):
    """Dynamo's KV router: the least prefill blocks + decode blocks, the request's own included, ties by chance.

    Prefill blocks are of prompts under way, until their first token, and what the engine's cache lacks of this one:
    engines report their caches, here at once. Decode blocks are those of all requests in flight, shared ones once.
    """

    def __init__(self, engines: int, block_tokens: int, rng: Random) -> None:
        super().__init__(engines, block_tokens, rng)
        self._prefill = [0.0] * engines
        self._active: list[Counter[int]] = [Counter() for _ in range(engines)]
        self._uncached: dict[tuple[int, Arrival], list[float]] = {}

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:  # noqa: ARG002 - no time
        """Return the engine, and book the request there."""
        blocks = arrival.prompt / self._block_tokens
        uncached = [blocks - engine.cached(arrival.chain) for engine in engines]
        costs = [
            self._prefill[number] + uncached[number] + len(active) + sum(block not in active for block in arrival.chain)
            for number, active in enumerate(self._active)
        ]
        least = min(costs)
        chosen = self._rng.choice([number for number, cost in enumerate(costs) if cost <= least + 1e-9])
        self._prefill[chosen] += uncached[chosen]
        self._active[chosen].update(arrival.chain)
        self._uncached.setdefault((chosen, arrival), []).append(uncached[chosen])
        return chosen

    def began(self, arrival: Arrival, chosen: int) -> None:
        """Take the prompt off the prefill blocks."""
        waiting = self._uncached[chosen, arrival]
        self._prefill[chosen] -= waiting.pop()
        if not waiting:
            del self._uncached[chosen, arrival]

    def ended(self, arrival: Arrival, chosen: int) -> None:
        """Take the request's blocks off."""
        active = self._active[chosen]
        active.subtract(arrival.chain)
        for block in arrival.chain:
            if not active[block]:
                del active[block]


class Oracle(_Unmoved):
    """Nobody's rule: the engine where this request's first token comes earliest, ties by chance.

    It knows queues, slots and caches of the engines as they are, and how long answers will be: what no router can know,
    so what is between it and a strategy is left to gain. What a pick does to whoever comes next counts for nothing.
    """

    def __call__(self, arrival: Arrival, engines: Sequence[Engine], now: float = 0.0) -> int:
        """Return the engine that answers first."""
        times = [engine.first_token_at(arrival, now) for engine in engines]
        first = min(times)
        return self._rng.choice([number for number, time in enumerate(times) if time <= first + 1e-9])


def _remember(known: OrderedDict[int, None], chain: tuple[int, ...], most: int) -> None:
    """Note blocks as the latest; the first of a chain is the last to go."""
    for block in reversed(chain):
        known[block] = None
        known.move_to_end(block)
    while len(known) > most:
        known.popitem(last=False)


def _match(known: OrderedDict[int, None], chain: tuple[int, ...]) -> int:
    for depth, block in enumerate(chain):
        if block not in known:
            return depth
    return len(chain)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


PEERS: dict[str, Callable[[int, int, Random], Rule]] = {
    "random": AtRandom,
    "oracle": Oracle,
    "kubeai-prefix-hash": BoundedHash,
    "sglang-cache-aware": CacheAware,
    "smg-cache-aware": CacheAwareLeastLoaded,
    "llm-d-scorers": WeightedScorers,
    "dynamo-kv": BlockCosts,
}
"""Round robin, least requests, least connections and power of two are the core's own strategies of these names."""
