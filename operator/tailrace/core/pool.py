"""A pool: the endpoints that serve one model, and the pick among them."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from math import ceil
from random import Random

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import EndpointState, PoolSettings
from tailrace.core.sources.base import Source
from tailrace.core.strategies import Strategy, strategy_named

REFUSALS_BEFORE_SCAN = 64
SMOOTHING = 0.1
MAX_RETRY_AFTER = 60


class Candidates:
    """The endpoints for one kind of request: those that are ready, and sources of those with a free slot."""

    def __init__(self, strategy: Strategy, rng: Random) -> None:
        self.ready: dict[str, Endpoint] = {}
        self.sources: tuple[Source, ...] = tuple(make(rng) for make in strategy.sources)


class Pool:
    """Endpoints of one model under one strategy.

    Two sets of candidates are kept, one of all endpoints and one of those with memory for long prompts, so that
    neither kind of request walks over endpoints it cannot use. ``scans`` counts picks that looked at every endpoint.
    """

    def __init__(self, settings: PoolSettings, rng: Random) -> None:
        self.settings = settings
        self.endpoints: dict[str, Endpoint] = {}
        self.scans = 0
        self._long_above = settings.long_prompt_tokens
        self._service_seconds = 1.0
        self._strategy = strategy_named(settings.strategy)
        self._any = Candidates(self._strategy, rng)
        self._long = Candidates(self._strategy, rng)
        self._sources = self._any.sources + self._long.sources
        self._counting = [source for source in self._sources if source.counts_picks]
        self._first_wins = self._strategy.take == 1 and len(self._strategy.sources) == 1

    def add(self, endpoint: Endpoint) -> None:
        """Take an endpoint in."""
        self.endpoints[endpoint.uid] = endpoint
        endpoint.pools.append(self)
        endpoint.sources += self._sources if self._enough_memory(endpoint) else self._any.sources
        self.moved(endpoint)
        endpoint.refresh()

    def remove(self, endpoint: Endpoint) -> None:
        """Let an endpoint go."""
        del self.endpoints[endpoint.uid]
        endpoint.pools.remove(self)
        endpoint.sources = tuple(source for source in endpoint.sources if source not in self._sources)
        for candidates in (self._any, self._long):
            candidates.ready.pop(endpoint.uid, None)
        for source in self._sources:
            source.forget(endpoint)

    def moved(self, endpoint: Endpoint) -> None:
        """Take note that the endpoint's state has changed."""
        for candidates in self._of(endpoint):
            if endpoint.state is EndpointState.READY:
                candidates.ready[endpoint.uid] = endpoint
            else:
                candidates.ready.pop(endpoint.uid, None)

    def is_long(self, tokens: int) -> bool:
        """Whether a request of that many tokens needs an endpoint with memory for long prompts."""
        return tokens > self._long_above

    def pick(
        self,
        tokens: int,
        adapter: str | None = None,
        avoid: frozenset[str] = frozenset(),
    ) -> Endpoint | None:
        """Return the endpoint the strategy prefers among those that qualify, or None. Takes no slot."""
        candidates = self._long if tokens > self._long_above else self._any
        if self._first_wins and adapter is None and not avoid:
            endpoint = candidates.sources[0].best()
        else:
            endpoint = self._compare(candidates, adapter, avoid)
        if endpoint is not None:
            for source in self._counting:
                source.took(endpoint)
        return endpoint

    def qualified(
        self, tokens: int, adapter: str | None = None, avoid: frozenset[str] = frozenset()
    ) -> Iterator[Endpoint]:
        """Yield the ready endpoints that could serve such a request, free slot or not, as they became ready."""
        return (e for e in self._for(tokens).ready.values() if e.uid not in avoid and _serves(e, adapter))

    def learn(self, seconds: float) -> None:
        """Learn how long a request occupies its slot."""
        self._service_seconds += SMOOTHING * (seconds - self._service_seconds)

    def retry_after(self) -> int:
        """Return in how many whole seconds a slot should be free when all are taken.

        Each endpoint frees a slot at least once in a mean service time, and they do so independently.
        """
        seconds = self._service_seconds / max(1, len(self._any.ready))
        return min(MAX_RETRY_AFTER, max(1, ceil(seconds)))

    def _of(self, endpoint: Endpoint) -> tuple[Candidates, ...]:
        return (self._any, self._long) if self._enough_memory(endpoint) else (self._any,)

    def _enough_memory(self, endpoint: Endpoint) -> bool:
        return endpoint.gpu_memory_gb >= self.settings.long_prompt_min_gpu_memory_gb

    def _for(self, tokens: int) -> Candidates:
        return self._long if tokens > self._long_above else self._any

    def _compare(self, candidates: Candidates, adapter: str | None, avoid: frozenset[str]) -> Endpoint | None:
        found = self._offered(candidates, adapter, avoid)
        if found is None:
            found = self._scan(candidates, adapter, avoid)
        return min(found, key=self._strategy.score, default=None)

    def _offered(self, candidates: Candidates, adapter: str | None, avoid: frozenset[str]) -> list[Endpoint] | None:
        """Return a few of each source, or None when too many were refused and a scan is cheaper."""
        found: list[Endpoint] = []
        refusals = 0
        for source in candidates.sources:
            wanted = len(found) + self._strategy.take
            for endpoint in source.offer():
                if endpoint.uid in avoid or not _serves(endpoint, adapter):
                    refusals += 1
                    if refusals >= REFUSALS_BEFORE_SCAN:
                        return None
                    continue
                found.append(endpoint)
                if len(found) == wanted:
                    break
        return found

    def _scan(self, candidates: Candidates, adapter: str | None, avoid: frozenset[str]) -> list[Endpoint]:
        """Return what the sources would have offered, by looking at every endpoint."""
        self.scans += 1
        able = [e for e in candidates.ready.values() if e.available and e.uid not in avoid and _serves(e, adapter)]
        take = self._strategy.take
        return [e for source in candidates.sources for e in nsmallest(take, able, key=source.order)]


def _serves(endpoint: Endpoint, adapter: str | None) -> bool:
    return adapter is None or adapter in endpoint.adapters
