"""A pool: the endpoints that serve one model, and the pick among them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from heapq import nsmallest
from math import ceil, inf
from random import Random
from typing import NamedTuple

from tailrace.core.endpoint import Endpoint
from tailrace.core.learn import Rate
from tailrace.core.loaded import Loaded
from tailrace.core.meter import UNMETERED, Meter, Notes
from tailrace.core.model import EndpointState, PoolSettings, Request
from tailrace.core.nearness import has_room
from tailrace.core.policy import Policy
from tailrace.core.sources.base import ANY, Source
from tailrace.core.strategies import strategy_named

REFUSALS_BEFORE_SCAN = 64
LOOK_SECONDS = 0.00001
"""So long for each endpoint nobody looks for an idle one again, when there was none."""
SMOOTHING = 0.1
MAX_RETRY_AFTER = 60
LEAST_SECONDS = 0.001


class Candidates:
    """The endpoints for one kind of request: those that are ready, and sources of those with a free slot."""

    def __init__(self, policy: Policy) -> None:
        self.ready: dict[str, Endpoint] = {}
        self.draws = policy.draws()
        self.sources = tuple(draw.source for draw in self.draws)
        self.first = self.sources[0]


class Group:
    """Endpoints that are picked from together: ``any`` of them, and those with memory for ``long`` prompts."""

    def __init__(self, policy: Policy) -> None:
        self.any = Candidates(policy)
        self.long = Candidates(policy)
        self.sources = self.any.sources + self.long.sources
        self.counting = [source for source in self.sources if source.counts_picks]

    def of(self, *, long: bool) -> tuple[Candidates, ...]:
        """Return the candidates among which an endpoint is, that has memory for long prompts or has not."""
        return (self.any, self.long) if long else (self.any,)

    def sources_of(self, *, long: bool) -> tuple[Source, ...]:
        """Return the sources of these candidates: one object for all endpoints, so that a pick finds it near."""
        return self.sources if long else self.any.sources

    def to_pick_from(self, *, long: bool) -> Candidates:
        """Return the candidates for a long prompt, or for any other."""
        return self.long if long else self.any


class Foreseen(NamedTuple):
    """What a pick would make of a request: whom it would compare, best first, and who else is able to take it."""

    compared: list[Endpoint]
    others: list[Endpoint]


class Pool:
    """Endpoints of one model under one strategy.

    Two sets of candidates are kept, one of all endpoints and one of those with memory for long prompts, so that
    neither kind of request walks over endpoints it cannot use. Backups are a group of their own, made when there is
    one. ``scans`` counts picks that looked at every endpoint. ``policy`` is the strategy at work, with what it
    remembers; a pool that takes another one's place is given it. ``has_adapters``: its model has LoRA adapters.
    """

    def __init__(self, settings: PoolSettings, rng: Random, policy: Policy | None = None) -> None:
        self.settings = settings
        self.policy = strategy_named(settings.strategy)(settings, rng) if policy is None else policy
        self.notes = Notes() if self.policy.notes is None else self.policy.notes
        self.endpoints: dict[str, Endpoint] = {}
        self.scans = 0
        self.has_adapters = False
        self._rng = rng
        self._long_above = settings.long_prompt_tokens
        self._service_seconds = 1.0
        self._ends = Rate()
        self._usual = Group(self.policy)
        self._backup: Group | None = None
        self._any, self._long = self._usual.any, self._usual.long
        self._counting = self._usual.counting
        self._loaded = Loaded()
        self._looked_at = -inf
        self._score = self.policy.score
        self._may_hold = self.policy.holds is not None and settings.queue_size > 0
        self._same_for_all = self._score is None and not self.policy.sees_request

    def add(self, endpoint: Endpoint) -> None:
        """Take an endpoint in."""
        if self.policy.notes is not None and endpoint.meter is UNMETERED:
            endpoint.meter = Meter()
        if endpoint.backup and self._backup is None:
            self._backup = Group(self.policy)
            self._counting = self._usual.counting + self._backup.counting
        self.endpoints[endpoint.uid] = endpoint
        endpoint.pools.append(self)
        endpoint.sources += self._group(endpoint).sources_of(long=self._takes_long(endpoint))
        self.heard(endpoint)
        self.moved(endpoint)
        endpoint.refresh()

    def remove(self, endpoint: Endpoint) -> None:
        """Let an endpoint go."""
        del self.endpoints[endpoint.uid]
        endpoint.pools.remove(self)
        mine = self._of(endpoint)
        sources = [source for candidates in mine for source in candidates.sources]
        endpoint.sources = tuple(source for source in endpoint.sources if source not in sources)
        for candidates in mine:
            candidates.ready.pop(endpoint.uid, None)
        for source in sources:
            source.forget(endpoint)
        self._loaded.forget(endpoint)
        if self.policy.figures is not None:
            self.policy.figures.forget(endpoint)

    def heard(self, endpoint: Endpoint) -> None:
        """Take note that the endpoint's reading has changed."""
        self._loaded.heard(endpoint)
        if self.policy.figures is not None:
            self.policy.figures.heard(endpoint)

    @property
    def reads_engines(self) -> bool:
        """Whether the engines of its endpoints are to be read."""
        wanted = self.settings.read_engines
        return wanted == "Always" or (wanted == "WhenNeeded" and self._makes_use_of_readings)

    @property
    def _makes_use_of_readings(self) -> bool:
        return self.policy.figures is not None or (self.has_adapters and not self.policy.sees_request)

    @property
    def ready(self) -> Collection[Endpoint]:
        """The endpoints that are ready, as they became so, backups not counted."""
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
        if self._same_for_all and adapter is None and not avoid and (request is ANY or request.subset is None):
            endpoint = candidates.first.best()
        else:
            endpoint = self._compare(candidates, adapter, avoid, request, now)
        if endpoint is None and self._backup is not None and not self._waits(tokens, adapter, avoid, request):
            endpoint = self._compare(
                self._backup.to_pick_from(long=tokens > self._long_above), adapter, avoid, request, now
            )
        if endpoint is not None:
            for source in self._counting:
                source.took(endpoint)
        return endpoint

    def qualified(
        self,
        tokens: int,
        adapter: str | None = None,
        avoid: frozenset[str] = frozenset(),
        subset: frozenset[str] | None = None,
    ) -> Iterator[Endpoint]:
        """Yield the ready endpoints that could serve such a request, free slot or not, backups last."""
        groups = (self._usual,) if self._backup is None else (self._usual, self._backup)
        for group in groups:
            ready = group.to_pick_from(long=self.is_long(tokens)).ready
            yield from (e for e in ready.values() if e.uid not in avoid and _serves(e, adapter, subset))

    def foresee(
        self, tokens: int, adapter: str | None, avoid: frozenset[str], request: Request, now: float
    ) -> Foreseen:
        """Return what ``pick`` would compare now, the one that it would return first. Looks at every endpoint.

        Nothing is picked, and no later pick is another one for it: chance is put back to where it was.
        """
        found = self._foresee(self._usual, tokens, adapter, avoid, request, now)
        if not found.compared and self._backup is not None and not self._waits(tokens, adapter, avoid, request):
            found = self._foresee(self._backup, tokens, adapter, avoid, request, now)
        return found

    def _foresee(  # noqa: PLR0917 - as the public one
        self, group: Group, tokens: int, adapter: str | None, avoid: frozenset[str], request: Request, now: float
    ) -> Foreseen:
        candidates, chance = group.to_pick_from(long=self.is_long(tokens)), self._rng.getstate()
        try:
            compared = self._to_compare(candidates, adapter, avoid, request, now, peek=True)
            others = [e for e in _able(candidates, adapter, avoid, request.subset) if e not in compared]
            others.sort(key=candidates.draws[-1].source.order)
        finally:
            self._rng.setstate(chance)
        if self._score is not None:
            compared = sorted(dict.fromkeys(compared), key=self._score(request, now))
        return Foreseen(compared, others)

    def holds(self, found: Iterable[Endpoint], now: float) -> bool:
        """Whether a request that may wait should rather wait than go to any of these."""
        holds = self.policy.holds
        return self._may_hold and holds is not None and all(holds(each, now) for each in found)

    def has_use(self, endpoints: Iterable[Endpoint], now: float) -> bool:
        """Whether one of these has a slot for a request that may wait."""
        return any(each.available and not self.holds((each,), now) for each in endpoints)

    def home(self, request: Request, now: float) -> Endpoint | None:
        """Return the one endpoint that may serve the request while it is ready, None when there are more."""
        home = None if self.policy.home is None else self.policy.home(request, now)
        ready = self._usual.to_pick_from(long=self.is_long(request.tokens)).ready
        return home if home is not None and home.uid in ready else None

    def learn(self, seconds: float, now: float) -> None:
        """Learn from the end of a request how long one occupies its slot, and how often a slot is freed."""
        self._service_seconds += SMOOTHING * (seconds - self._service_seconds)
        self._ends.see(now)

    def retry_after(self, now: float, waiting: int = 0) -> int:
        """Return in how many whole seconds a slot should be free when all are taken and so many wait for one.

        They are freed as often as lately, and at the least each endpoint frees one in a mean service time.
        """
        least = max(1, len(self._any.ready)) / max(self._service_seconds, LEAST_SECONDS)
        seconds = (waiting + 1) / max(least, self._ends.at(now))
        return min(MAX_RETRY_AFTER, max(1, ceil(seconds)))

    def _of(self, endpoint: Endpoint) -> tuple[Candidates, ...]:
        return self._group(endpoint).of(long=self._takes_long(endpoint))

    def _group(self, endpoint: Endpoint) -> Group:
        return self._backup if endpoint.backup and self._backup is not None else self._usual

    def _takes_long(self, endpoint: Endpoint) -> bool:
        return endpoint.gpu_memory_gb >= self.settings.long_prompt_min_gpu_memory_gb

    def _waits(self, tokens: int, adapter: str | None, avoid: frozenset[str], request: Request) -> bool:
        """Whether a request got none though an endpoint is available: a hard session's, or one that had better wait."""
        if not self.settings.hard_sessions and not (request.patient and self._may_hold):
            return False
        return any(e.available and not e.backup for e in self.qualified(tokens, adapter, avoid, request.subset))

    def _compare(
        self, candidates: Candidates, adapter: str | None, avoid: frozenset[str], request: Request, now: float
    ) -> Endpoint | None:
        found = self._to_compare(candidates, adapter, avoid, request, now)
        if request.patient and found and self.holds(found, now):
            found = self._idle(candidates, adapter, avoid, request, now)
        if self._score is None or len(found) < 2:
            return found[0] if found else None
        # Sources may offer the same one, and a score costs more than to see that.
        return min(dict.fromkeys(found), key=self._score(request, now))

    def _idle(
        self, candidates: Candidates, adapter: str | None, avoid: frozenset[str], request: Request, now: float
    ) -> list[Endpoint]:
        """Return whom to compare when all that were drawn have enough to do: nobody waits while one is idle."""
        if now < self._looked_at + LOOK_SECONDS * len(candidates.ready):
            return []
        self.scans += 1
        able = _able(candidates, adapter, avoid, request.subset)
        found = [endpoint for endpoint in able if not endpoint.meter.pending]
        if not found:
            self._looked_at = now
        return self._best(candidates, found)

    def _to_compare(
        self,
        candidates: Candidates,
        adapter: str | None,
        avoid: frozenset[str],
        request: Request,
        now: float,
        *,
        peek: bool = False,
    ) -> list[Endpoint]:
        """Return who is compared: of those with the adapter loaded, else a few of each source, else of a scan."""
        if adapter is not None and (found := self._with_adapter(candidates, adapter, avoid, request.subset)):
            return found
        offered = self._offered(candidates, adapter, avoid, request, now, peek=peek)
        if offered is not None:
            return offered
        self.scans += not peek
        return self._best(candidates, _able(candidates, adapter, avoid, request.subset))

    def _with_adapter(
        self, candidates: Candidates, adapter: str, avoid: frozenset[str], subset: frozenset[str] | None
    ) -> list[Endpoint]:
        """Return what the sources would offer of the endpoints whose engines work with the adapter and have room."""
        if self.policy.sees_request:
            return []
        percent = self.settings.spill_percent
        able = [
            e
            for e in self._loaded.by(adapter)
            if e.uid in candidates.ready and has_room(e, percent) and e.available and e.uid not in avoid
        ]
        return self._best(candidates, [e for e in able if _serves(e, adapter, subset)])

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
                if endpoint.uid in avoid or not _serves(endpoint, adapter, request.subset):
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

    def _best(self, candidates: Candidates, able: list[Endpoint]) -> list[Endpoint]:
        """Return what the sources would have offered of these.

        Where the first one offered wins, the last source decides: it is the one that knows every endpoint.
        """
        draws = candidates.draws if self._score is not None else candidates.draws[-1:]
        return [e for draw in draws for e in nsmallest(draw.take, able, key=draw.source.order)]


def _able(
    candidates: Candidates, adapter: str | None, avoid: frozenset[str], subset: frozenset[str] | None
) -> list[Endpoint]:
    """Return the endpoints that could take the request, by looking at every one."""
    ready = candidates.ready.values()
    return [e for e in ready if e.available and e.uid not in avoid and _serves(e, adapter, subset)]


def _serves(endpoint: Endpoint, adapter: str | None, subset: frozenset[str] | None) -> bool:
    return (adapter is None or adapter in endpoint.adapters) and (subset is None or endpoint.address in subset)
