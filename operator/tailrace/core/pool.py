"""A pool: the endpoints that serve one model, and the pick among them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from math import ceil
from random import Random

from tailrace.core.endpoint import Endpoint
from tailrace.core.meter import UNMETERED, Meter, Notes
from tailrace.core.model import EndpointState, PoolSettings, Request
from tailrace.core.policy import Policy
from tailrace.core.sources.base import ANY
from tailrace.core.strategies import strategy_named

REFUSALS_BEFORE_SCAN = 64
SMOOTHING = 0.1
MAX_RETRY_AFTER = 60


class Candidates:
    """The endpoints for one kind of request: those that are ready, and sources of those with a free slot."""

    def __init__(self, policy: Policy) -> None:
        self.ready: dict[str, Endpoint] = {}
        self.draws = policy.draws()
        self.sources = tuple(draw.source for draw in self.draws)
        self.first = self.sources[0]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a pick would make of a request: whom it would compare, best first, and who else is able to take it."""

    compared: list[Endpoint]
    others: list[Endpoint]


class Pool:
    """Endpoints of one model under one strategy.

    Two sets of candidates are kept, one of all endpoints and one of those with memory for long prompts, so that
    neither kind of request walks over endpoints it cannot use. ``scans`` counts picks that looked at every endpoint.
    ``policy`` is the strategy at work, with what it remembers; a pool that takes another one's place is given it.
    """

    def __init__(self, settings: PoolSettings, rng: Random, policy: Policy | None = None) -> None:
        self.settings = settings
        self.policy = strategy_named(settings.strategy)(settings, rng) if policy is None else policy
        self.notes = Notes() if self.policy.notes is None else self.policy.notes
        self.endpoints: dict[str, Endpoint] = {}
        self.scans = 0
        self._rng = rng
        self._long_above = settings.long_prompt_tokens
        self._service_seconds = 1.0
        self._any = Candidates(self.policy)
        self._long = Candidates(self.policy)
        self._sources = self._any.sources + self._long.sources
        self._counting = [source for source in self._sources if source.counts_picks]
        self._score = self.policy.score
        self._same_for_all = self._score is None and not self.policy.sees_request

    def add(self, endpoint: Endpoint) -> None:
        """Take an endpoint in."""
        if self.policy.notes is not None and endpoint.meter is UNMETERED:
            endpoint.meter = Meter()
        self.endpoints[endpoint.uid] = endpoint
        endpoint.pools.append(self)
        endpoint.sources += self._sources if self._enough_memory(endpoint) else self._any.sources
        self.heard(endpoint)
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
        if self.policy.figures is not None:
            self.policy.figures.forget(endpoint)

    def heard(self, endpoint: Endpoint) -> None:
        """Take note that the endpoint's reading has changed."""
        if self.policy.figures is not None:
            self.policy.figures.heard(endpoint)

    @property
    def reads_engines(self) -> bool:
        """Whether the engines of its endpoints are to be read."""
        wanted = self.settings.read_engines
        return wanted == "Always" or (wanted == "WhenNeeded" and self.policy.figures is not None)

    @property
    def ready(self) -> Collection[Endpoint]:
        """The endpoints that are ready, as they became so."""
        return self._any.ready.values()

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
        request: Request = ANY,
        now: float = 0.0,
    ) -> Endpoint | None:
        """Return the endpoint the strategy prefers among those that qualify, or None. Takes no slot.

        ``request`` and ``now`` are for strategies to which requests differ by more than their length.
        """
        candidates = self._long if tokens > self._long_above else self._any
        if self._same_for_all and adapter is None and not avoid:
            endpoint = candidates.first.best()
        else:
            endpoint = self._compare(candidates, adapter, avoid, request, now)
        if endpoint is not None:
            for source in self._counting:
                source.took(endpoint)
        return endpoint

    def qualified(
        self, tokens: int, adapter: str | None = None, avoid: frozenset[str] = frozenset()
    ) -> Iterator[Endpoint]:
        """Yield the ready endpoints that could serve such a request, free slot or not, as they became ready."""
        return (e for e in self._for(tokens).ready.values() if e.uid not in avoid and _serves(e, adapter))

    def foresee(
        self, tokens: int, adapter: str | None, avoid: frozenset[str], request: Request, now: float
    ) -> Foreseen:
        """Return what ``pick`` would compare now, the one that it would return first. Looks at every endpoint.

        Nothing is picked, and no later pick is another one for it: chance is put back to where it was.
        """
        candidates, chance = self._for(tokens), self._rng.getstate()
        try:
            compared = self._offered(candidates, adapter, avoid, request, now, peek=True)
            if compared is None:
                compared = self._all_able(candidates, adapter, avoid)
            able = [e for e in self.qualified(tokens, adapter, avoid) if e.available and e not in compared]
            others = sorted(able, key=candidates.draws[-1].source.order)
        finally:
            self._rng.setstate(chance)
        if self._score is not None:
            compared = sorted(dict.fromkeys(compared), key=self._score(request, now))
        return Foreseen(compared, others)

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

    def _compare(
        self, candidates: Candidates, adapter: str | None, avoid: frozenset[str], request: Request, now: float
    ) -> Endpoint | None:
        found = self._offered(candidates, adapter, avoid, request, now)
        if found is None:
            self.scans += 1
            found = self._all_able(candidates, adapter, avoid)
        if self._score is None or len(found) < 2:
            return found[0] if found else None
        return min(found, key=self._score(request, now))

    def _offered(
        self,
        candidates: Candidates,
        adapter: str | None,
        avoid: frozenset[str],
        request: Request,
        now: float,
        *,
        peek: bool = False,
    ) -> list[Endpoint] | None:
        """Return a few of each source, or None when too many were refused and a scan is cheaper."""
        found: list[Endpoint] = []
        refusals = 0
        for draw in candidates.draws:
            wanted = len(found) + draw.take
            source = draw.source
            for endpoint in source.peek(request, now) if peek else source.offer(request, now):
                if endpoint.uid in avoid or not _serves(endpoint, adapter):
                    refusals += 1
                    if refusals >= REFUSALS_BEFORE_SCAN:
                        return None
                    continue
                found.append(endpoint)
                if len(found) == wanted:
                    break
            if found and self._score is None:
                break
        return found

    def _all_able(self, candidates: Candidates, adapter: str | None, avoid: frozenset[str]) -> list[Endpoint]:
        """Return what the sources would have offered, by looking at every endpoint.

        Where the first one offered wins, the last source decides: it is the one that knows every endpoint.
        """
        able = [e for e in candidates.ready.values() if e.available and e.uid not in avoid and _serves(e, adapter)]
        draws = candidates.draws if self._score is not None else candidates.draws[-1:]
        return [e for draw in draws for e in nsmallest(draw.take, able, key=draw.source.order)]


def _serves(endpoint: Endpoint, adapter: str | None) -> bool:
    return adapter is None or adapter in endpoint.adapters
