"""A pool: the endpoints that serve one model, and the pick among them."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from random import Random

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import EndpointState, PoolSettings
from tailrace.core.sources.base import Source
from tailrace.core.strategies import Strategy, strategy_named

REFUSALS_BEFORE_SCAN = 64
SMOOTHING = 0.1
MAX_RETRY_AFTER = 60


class Pool:
    """Endpoints of one model under one strategy.

    Two sets of sources are kept, one of all endpoints and one of those with memory for long prompts, so that neither
    kind of request walks over endpoints it cannot use. ``scans`` counts picks that had to look at every endpoint.
    """

    def __init__(self, settings: PoolSettings, rng: Random) -> None:
        self.settings = settings
        self.endpoints: dict[str, Endpoint] = {}
        self.scans = 0
        self._service_seconds = 1.0
        self._strategy: Strategy = strategy_named(settings.strategy)
        self._any: list[Source] = [make(rng) for make in self._strategy.sources]
        self._long: list[Source] = [make(rng) for make in self._strategy.sources]

    def add(self, endpoint: Endpoint) -> None:
        """Take an endpoint in."""
        self.endpoints[endpoint.uid] = endpoint
        endpoint.pools.append(self)
        self.refresh(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Let an endpoint go."""
        del self.endpoints[endpoint.uid]
        endpoint.pools.remove(self)
        for source in (*self._any, *self._long):
            source.remove(endpoint)

    def refresh(self, endpoint: Endpoint) -> None:
        """Take note that the endpoint's load or state has changed."""
        if endpoint.available:
            for source in self._any:
                source.update(endpoint)
            if endpoint.gpu_memory_gb >= self.settings.long_prompt_min_gpu_memory_gb:
                for source in self._long:
                    source.update(endpoint)
        else:
            for source in self._any:
                source.remove(endpoint)
            for source in self._long:
                source.remove(endpoint)

    def is_long(self, tokens: int) -> bool:
        """Whether a request of that many tokens needs an endpoint with memory for long prompts."""
        return tokens > self.settings.long_prompt_tokens

    def pick(self, tokens: int, adapter: str | None = None, avoid: frozenset[str] = frozenset()) -> Endpoint | None:
        """Return the endpoint the strategy prefers among those that qualify, or None. Takes no slot."""
        sources = self._long if self.is_long(tokens) else self._any
        found = self._candidates(sources, adapter, avoid)
        if found is None:
            found = self._scan(tokens, adapter, avoid)
        if not found:
            return None
        endpoint = found[0] if len(found) == 1 else min(found, key=self._strategy.score)
        for source in sources:
            source.took(endpoint)
        return endpoint

    def qualified(self, tokens: int, adapter: str | None = None) -> Iterator[Endpoint]:
        """Yield the ready endpoints that could serve such a request, free slot or not, in the order of adding."""
        floor = self.settings.long_prompt_min_gpu_memory_gb if self.is_long(tokens) else 0
        return (e for e in self.ready() if e.gpu_memory_gb >= floor and _serves(e, adapter))

    def ready(self) -> Iterator[Endpoint]:
        """Yield the endpoints that are ready, in the order of adding."""
        return (e for e in self.endpoints.values() if e.state is EndpointState.READY)

    def learn(self, seconds: float) -> None:
        """Learn how long a request occupies its slot."""
        self._service_seconds += SMOOTHING * (seconds - self._service_seconds)

    def retry_after(self) -> int:
        """Return in how many whole seconds a slot should be free when all are taken.

        Each endpoint frees a slot at least once in a mean service time, and they do so independently.
        """
        seconds = self._service_seconds / max(1, len(self.endpoints))
        return min(MAX_RETRY_AFTER, max(1, ceil(seconds)))

    def _candidates(self, sources: list[Source], adapter: str | None, avoid: frozenset[str]) -> list[Endpoint] | None:
        """Return a few candidates, or None when too many were refused and a scan is cheaper."""
        found: list[Endpoint] = []
        refusals = 0
        for source in sources:
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

    def _scan(self, tokens: int, adapter: str | None, avoid: frozenset[str]) -> list[Endpoint]:
        self.scans += 1
        return [e for e in self.qualified(tokens, adapter) if e.available and e.uid not in avoid]


def _serves(endpoint: Endpoint, adapter: str | None) -> bool:
    return adapter is None or adapter in endpoint.adapters
