"""The one entry that adapters use: who is where, where a request goes, what is in flight, what may be released."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from random import Random

from tailrace.core.drain import GATE_PREFIX, DrainKind, Drains, Mark
from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.explain import explain
from tailrace.core.leases import Leases
from tailrace.core.ledger import Attempt, Ledger
from tailrace.core.meter import UNMETERED
from tailrace.core.model import (
    DrainReason,
    DrainStatus,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    EngineAddress,
    Explanation,
    Held,
    Needs,
    Observation,
    Outcome,
    Pick,
    Place,
    PoolQuality,
    Reading,
    Refusal,
    Release,
    Request,
    RouterStatus,
    Snapshot,
    Usage,
    Word,
)
from tailrace.core.quality import Monitor
from tailrace.core.queue import Answer, Queue, Waiting
from tailrace.core.readings import Readings
from tailrace.core.refusals import NOT_SYNCED, SHUTTING_DOWN, behind, refusal
from tailrace.core.registry import Registry, Target

REMEMBERED_ENDS = 10_000
"""How many ended leased attempts are remembered, so that completing one twice is answered as done."""


class Completion(Enum):
    """What completing or renewing an attempt found."""

    DONE = "done"
    ALREADY = "already"
    UNKNOWN = "unknown"


class Router:
    """Level-triggered, synchronous, single-threaded. ``now`` is seconds on one clock that never goes back.

    ``member`` names this life of this replica and opens every attempt id, so that a completion finds the replica that
    knows. ``booted_at`` is when it began: endpoints older than that may hold requests it has never heard of.
    ``revision`` grows with every change that a reconciling adapter could act on; ``on_change`` is called after it.
    ``alone``: nobody else can join, so that no list of members is ever waited for; what it is told first is the whole.
    """

    def __init__(self, member: str, *, booted_at: float, rng: Random, alone: bool = True) -> None:
        self.member = member
        self.booted_at = booted_at
        self.revision = 0
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.on_change: Callable[[], None] = lambda: None
        self._registry = Registry(rng, booted_at)
        self._ledger = Ledger()
        self._leases = Leases()
        self._readings = Readings()
        self._monitor = Monitor()
        self._drains = Drains(member, fixed=alone)
        self._left: frozenset[str] = frozenset()
        self._queue = Queue(self._of_waiting, self._pick)
        self._ended: OrderedDict[str, Endpoint] = OrderedDict()
        self._synced = alone
        self._sequence = 0
        self._closing = False
        self._now = booted_at

    # What is observed

    def apply(self, observation: Observation, now: float) -> None:
        """Take in what was observed. Old news and repeats change nothing."""
        self._now = now
        self._synced = self._synced or isinstance(observation, Snapshot)
        for uid in self._registry.apply(observation):
            endpoint = self._registry.endpoints.get(uid)
            if endpoint is None:
                self._lose(uid)
            else:
                self._follow(endpoint, self._registry.specs[uid], now)
        self._queue.serve(now)
        self._changed()

    def _lose(self, uid: str) -> None:
        self._drains.forget(uid)
        if not self._registry.is_gone(uid):
            return  # only taken out: what is in flight there goes on, and leases run
        for attempt in self._ledger.at(uid):
            if attempt.expires_at is not None:
                self._end(attempt, Outcome.LOST, self._now)

    def _follow(self, endpoint: Endpoint, spec: EndpointSpec, now: float) -> None:
        """Bring the endpoint's drain in line with what was observed of it."""
        if spec.deletion is not None:
            deletion = spec.deletion
            mark = Mark(DrainKind.DELETION, deletion.reason, deletion.started_at, deletion.deadline)
            self._begin_marked(spec, mark, now)
        elif spec.cordon is not None:
            self._begin_marked(spec, _manual(spec.cordon, now), now)
        if spec.gate_mark is not None and spec.gate_mark == spec.incarnation:
            self._begin_marked(spec, _provisional(spec, now), now)
        self._undrain(endpoint, spec)

    def _undrain(self, endpoint: Endpoint, spec: EndpointSpec) -> None:
        cancelled = spec.cordon is None and spec.is_pod and self._drains.saw_no_cordon(spec.uid)
        if spec.fit:
            cancelled |= self._drains.saw_ready(spec.uid, spec.incarnation)
            if cancelled:
                endpoint.on(Event.SEEN_READY)

    def _begin(self, spec: EndpointSpec, mark: Mark, now: float) -> None:
        self._drains.begin(self._registry.endpoints[spec.uid], mark, spec.drain, now)
        if not spec.is_pod:
            self._drains.saw_mark(spec.uid, mark)

    def _begin_marked(self, spec: EndpointSpec, mark: Mark, now: float) -> None:
        self._begin(spec, mark, now)
        self._drains.saw_mark(spec.uid, mark)

    @property
    def members_wanted(self) -> int:
        """The number of the newest list of members that is needed; ``set_members`` answers it. 0: none ever is."""
        return self._drains.wanted

    def set_members(
        self,
        members: frozenset[str],
        now: float | None = None,
        *,
        answers: int = 0,
        left: frozenset[str] = frozenset(),
        sharing: int | None = None,
    ) -> None:
        """Say which replicas must agree on a drain, this one always among them; ``sharing``: how many take requests.

        ``answers`` is what ``members_wanted`` was before the list was read. Members that vanish from one list to the
        next, and those of ``left`` (whom this replica may never have met), may have given leases until ``now`` (by
        default the time of the last observation) that nobody remembers.
        """
        members |= {self.member}
        gone = (self._drains.members - members) | (left - self._left)
        self._left = left
        if gone:
            self._go_blind(gone, self._now if now is None else now)
        self._drains.set_members(members, answers)
        self._registry.set_members(max(1, len(members) if sharing is None else sharing))
        self._changed()

    def _go_blind(self, left: frozenset[str], now: float) -> None:
        self._registry.blind_before = now
        for uid, endpoint in self._registry.endpoints.items():
            if not self._drains.knows_idle(uid, left):
                endpoint.blind_since = now

    def set_place(self, place: Place) -> None:
        """Say where this replica is, for strategies that prefer what is near."""
        self._registry.set_place(place)

    # Requests

    def needs(self, model: str, namespace: str | None = None) -> Needs | None:
        """Return what the strategy for that model wants to know of a request; None: nothing beyond its tokens."""
        target = self._registry.resolve(model, namespace) if self._registry.curious else None
        return target.pool.policy.needs if isinstance(target, Target) else None

    def acquire(self, request: Request, now: float) -> Pick | Refusal:
        """Choose an endpoint and book an attempt there; from here on it is in flight until released."""
        target = self._resolve(request)
        if isinstance(target, Refusal):
            return target
        self._expire(now)
        if self._queue.is_before(target, request):
            return behind(target, request, self._queue.count(target.pool_key), now)
        return self._pick(target, request, now) or refusal(target, request, now)

    def _pick(self, target: Target, request: Request, now: float) -> Pick | None:
        endpoint = target.pool.pick(request.tokens, target.adapter, request.avoid, request, now)
        return None if endpoint is None else self._book(request, target, endpoint, now)

    # Requests that wait

    def wait(self, request: Request, now: float, answer: Answer, came_at: float | None = None) -> Waiting | Refusal:
        """Have a patient request, refused as SATURATED, wait for its turn; a full or missing queue refuses it too.

        ``answer`` is called once: when it is its turn, or when nobody serves the model any more. Until then the door
        may ``leave``, and has to ``give_up`` when it has waited ``until``. Call ``tick`` a few times a second while
        somebody waits: for what the clock alone brings. ``came_at``: when it first came, if it was sent already.
        """
        target = self._resolve(request)
        return target if isinstance(target, Refusal) else self._queue.enter(target, request, now, answer, came_at)

    def leave(self, waiting: Waiting) -> None:
        """Let go of a request whose client is gone; one that was answered already is left as it is."""
        self._queue.leave(waiting)

    def give_up(self, waiting: Waiting, now: float) -> Pick | Refusal:
        """End the wait of a request that was not answered: any free slot is good enough now."""
        return self._queue.give_up(waiting, now)

    def dismiss(self) -> None:
        """Refuse all who wait, and whoever would from now on: this replica can't wait for them any more."""
        self._queue.dismiss()

    def waiting(self) -> dict[str, int]:
        """Return how many requests wait at this replica, by pool."""
        return self._queue.counts()

    def tick(self, now: float) -> None:
        """Do what is due by now for those who wait."""
        self._expire(now)
        self._queue.serve(now)

    def _of_waiting(self, request: Request) -> Target | Refusal:
        """Return where a request leads that waits: those are served also when no new ones are taken."""
        return self._registry.resolve(request.model, request.namespace)

    # What a pick would be

    def explain(self, request: Request, now: float) -> Explanation:
        """Return what ``acquire`` would do now, and why. Nothing is picked or booked, and no later pick is another one.

        What the clock alone has ended by now is booked first, as by any other look. Looks at every endpoint.
        """
        target = self._resolve(request)
        if isinstance(target, Refusal):
            return Explanation(target, elsewhere=len(self._registry.specs))
        self._expire(now)
        foreseen = target.pool.foresee(request.tokens, target.adapter, request.avoid, request, now)
        waiting = self._queue.count(target.pool_key)
        why_not = None if foreseen.compared else refusal(target, request, now)
        if self._queue.is_before(target, request):
            why_not = behind(target, request, waiting, now)
        return explain(target, request, foreseen, why_not, specs=self._registry.specs, now=now, waiting=waiting)

    def _resolve(self, request: Request) -> Target | Refusal:
        """Return where the request leads, or why this replica takes no such request."""
        if self._closing and not request.is_retry:
            return SHUTTING_DOWN
        target = self._registry.resolve(request.model, request.namespace)
        return NOT_SYNCED if isinstance(target, Refusal) and not self._synced else target

    def _book(self, request: Request, target: Target, endpoint: Endpoint, now: float) -> Pick:
        self._sequence += 1
        attempt_id = f"{self.member}-{self._sequence}"
        expires_at = now + endpoint.timeouts.total if request.leased else None
        attempt = self._ledger.open(attempt_id, endpoint, now, expires_at)
        if endpoint.meter is not UNMETERED:
            attempt.work = target.pool.notes.open(endpoint, request, now)
        if expires_at is not None:
            self._leases.grant(attempt_id, expires_at)
        served = request.model if target.adapter is not None else endpoint.served[target.pool_key]
        rewrite = None if served == request.model else served
        return Pick(attempt_id, endpoint.uid, endpoint.address, rewrite, endpoint.timeouts, expires_at)

    def first_byte(self, attempt_id: str, now: float, *, ok: bool = True) -> None:
        """Note that the engine has begun to answer; ``ok``: with what was asked for, not with an error."""
        attempt = self._ledger.get(attempt_id)
        if attempt is not None and attempt.first_byte_at is None:
            attempt.first_byte_at = now
            attempt.endpoint.unreached = 0
            if attempt.work is not None:
                attempt.work.began(now, ok=ok)
                self._queue.serve(now, attempt.endpoint)

    def unreached(self, attempt_id: str) -> None:
        """Note that no connection to the attempt's endpoint could be made; its next answer ends the row."""
        attempt = self._ledger.get(attempt_id)
        if attempt is not None:
            attempt.endpoint.unreached += 1

    def release(self, attempt_id: str, outcome: Outcome, now: float, usage: Usage | None = None) -> bool:
        """Book the end of an attempt. Return False when it was not in flight (any more): ends are booked once.

        ``usage`` is what the engine counted, where a door saw it.
        """
        attempt = self._ledger.get(attempt_id)
        if attempt is None:
            return False
        if outcome is Outcome.COMPLETED:
            endpoint, took = attempt.endpoint, now - attempt.started_at
            endpoint.ended += 1
            endpoint.unreached = 0
            endpoint.took += took
            for pool in endpoint.pools:
                pool.learn(took, now)
        self._end(attempt, outcome, now, usage)
        self._queue.serve(now, attempt.endpoint)
        return True

    def complete(self, attempt_id: str, outcome: Outcome, now: float, usage: Usage | None = None) -> Completion:
        """End a leased attempt on the word of whoever held it. Saying it twice is answered as done.

        A lease that ran out is unknown no more once its holder says that it ended. Attempts without a lease belong to
        the door that carries them: ids can be guessed.
        """
        attempt = self._ledger.get(attempt_id)
        if attempt is not None and attempt.expires_at is None:
            return Completion.UNKNOWN
        if self.release(attempt_id, outcome, now, usage):
            return Completion.DONE
        endpoint = self._ended.get(attempt_id)
        if endpoint is None:
            return Completion.UNKNOWN
        if attempt_id in endpoint.unknown:
            endpoint.unknown.discard(attempt_id)
            self._changed()
        return Completion.ALREADY

    def renew(self, attempt_id: str, now: float) -> float | None:
        """Extend a lease by its full time from now; return its new end, or None when there is no such lease."""
        self._expire(now)
        attempt = self._ledger.get(attempt_id)
        if attempt is None or attempt.expires_at is None:
            return None
        attempt.expires_at = now + attempt.endpoint.timeouts.total
        self._leases.grant(attempt_id, attempt.expires_at)
        return attempt.expires_at

    def _expire(self, now: float) -> None:
        if now >= self._readings.until:
            self._readings.expire(now)
        for attempt_id in self._leases.expired(now):
            attempt = self._ledger[attempt_id]
            attempt.endpoint.unknown.add(attempt_id)
            self._end(attempt, Outcome.EXPIRED, now)

    def _end(self, attempt: Attempt, outcome: Outcome, now: float, usage: Usage | None = None) -> None:
        if attempt.work is not None:
            attempt.work.end(outcome, usage, now)
        self._ledger.close(attempt)
        self._drains.ended(attempt.endpoint, outcome)
        self.outcomes[outcome] += 1
        if attempt.expires_at is not None:
            self._leases.drop(attempt.id)
            self._remember(attempt)
        if attempt.endpoint.state is not EndpointState.READY:
            self._changed()

    def _remember(self, attempt: Attempt) -> None:
        self._ended[attempt.id] = attempt.endpoint
        if len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    # Drains

    def gate_calls(self, uid: str, now: float) -> DrainStatus | None:
        """Drain the pod whose gate asks; without a deletion, until a new container of the pod is ready."""
        spec = self._registry.specs.get(uid)
        if spec is not None:
            self._begin(spec, _provisional(spec, now), now)
            self._changed()
        return self.drain_status(uid)

    def drain(self, uid: str, generation: int, now: float) -> DrainStatus | None:
        """Drain an endpoint by hand; a higher generation resumes it."""
        spec = self._registry.specs.get(uid)
        if spec is not None:
            self._begin(spec, _manual(generation, now), now)
            self._changed()
        return self.drain_status(uid)

    def resume(self, uid: str, generation: int) -> DrainStatus | None:
        """Cancel a drain by hand. A drain by deletion goes on: nothing brings a deleted pod back."""
        spec = self._registry.specs.get(uid)
        if spec is not None and self._drains.resume(uid, generation):
            if spec.fit:
                self._registry.endpoints[uid].on(Event.SEEN_READY)
            self._changed()
        return self.drain_status(uid)

    def ack(self, member: str, uid: str, in_flight: int, now: float) -> None:
        """Take another member's word: it drains the endpoint for the mark that counts here, with that many there."""
        key = self._drains.key(uid)
        if key is not None:
            self.hear(member, {uid: Word(in_flight, frozenset({key}))}, now)

    def hear(self, member: str, words: Mapping[str, Word], now: float) -> None:
        """Take another member's ``words``; late ones, repeats and those of replicas not known yet do no harm.

        The call of a gate is passed on in this way: it starts the drain here too.
        """
        changed = False
        for uid, word in words.items():
            changed |= self._follow_gate(uid, word, now)
            changed |= self._drains.hear(member, uid, word, now)
        if changed:
            self._changed()

    def _follow_gate(self, uid: str, word: Word, now: float) -> bool:
        spec = self._registry.specs.get(uid)
        if spec is None or spec.deletion is not None or GATE_PREFIX + spec.incarnation not in word.marks:
            return False
        return self._drains.begin(self._registry.endpoints[uid], _provisional(spec, now), spec.drain, now)

    def engine_read(self, uid: str, *, idle: bool, now: float) -> None:
        """Take in what the engine of one of ``questions`` said of itself."""
        if self._drains.engine_read(uid, idle=idle, now=now):
            self._changed()

    def judge(self, now: float) -> None:
        """Have a look at how evenly the pools are used; to be called every few seconds. May change a strategy."""
        if self._registry.fall_back(self._monitor.sample(self._registry.pools(), now)):
            self._changed()

    def quality(self) -> tuple[PoolQuality, ...]:
        """Return how evenly each pool is used."""
        servers = self._registry.servers_of()
        return tuple(
            self._monitor.quality(key, servers[key], pool.settings.strategy) for key, _, pool in self._registry.pools()
        )

    def engines(self) -> dict[str, EngineAddress]:
        """Return uid -> engine of the endpoints whose engines should be read, for ``engine_told``."""
        return self._registry.engines()

    def engine_told(self, uid: str, reading: Reading, now: float) -> None:
        """Take in what an engine of ``engines`` says of itself; it counts until it is a few intervals old."""
        endpoint = self._registry.endpoints.get(uid)
        engine = None if endpoint is None else self._registry.engine(endpoint)
        if endpoint is not None and engine is not None:
            self._readings.take(endpoint, reading, engine.interval, now)

    def words(self, now: float) -> dict[str, Word]:
        """Return what each other member's ``hear`` must be told: the endpoints that drain here, by uid."""
        self._expire(now)
        return self._drains.words(now)

    def unmarked(self, now: float) -> list[tuple[str, Mark]]:
        """Return the pods, by uid, that drain for a mark which only replicas know: it should be put on the pod."""
        return self._drains.unmarked(now)

    def drain_status(self, uid: str) -> DrainStatus | None:
        """Return how the endpoint's drain stands; None when the uid was never heard of."""
        endpoint = self._registry.endpoints.get(uid)
        if endpoint is not None:
            return self._drains.status(endpoint)
        if self._registry.is_gone(uid):
            return DrainStatus(uid, EndpointState.GONE, 0, safe_to_delete=True, deadline=None, reason=None)
        return None

    # What should be true

    def releasable(self, now: float) -> tuple[Release, ...]:
        """Return the drains by deletion that are over: their finalizers should be gone."""
        self._now = now
        self._expire(now)
        for endpoint in self._drains.past_deadline(now):
            for attempt in self._ledger.at(endpoint.uid):
                if attempt.expires_at is not None:
                    self._end(attempt, Outcome.CUT, now)
        if self._drains.advance(now, self._has_ended):
            self._changed()
        return tuple(self._drains.releasable())

    def _has_ended(self, uid: str) -> bool:
        return self._registry.specs[uid].ended

    def overdue(self, now: float) -> list[str]:
        """Return the attempts whose endpoint's deadline has passed: the doors that carry them should cut them."""
        return [a.id for endpoint in self._drains.past_deadline(now) for a in self._ledger.at(endpoint.uid)]

    def is_overdue(self, attempt_id: str, now: float) -> bool:
        """Whether the attempt is in flight past the drain deadline of its endpoint."""
        attempt = self._ledger.get(attempt_id)
        return attempt is not None and self._drains.is_past_deadline(attempt.endpoint.uid, now)

    def may_repeat(self, attempt_id: str) -> bool:
        """Whether the attempt is in flight at an endpoint that would still be given requests."""
        attempt = self._ledger.get(attempt_id)
        return attempt is not None and attempt.endpoint.state is EndpointState.READY

    def questions(self, now: float) -> dict[str, tuple[str, str]]:
        """Return uid -> (address, engine) of the endpoints whose engine should be asked whether it is idle."""
        found = {}
        for uid in self._drains.questions(now):
            spec = self._registry.specs[uid]
            server = self._registry.servers.get(spec.server)
            found[uid] = (spec.address, server.engine if server is not None else "vllm")
        return found

    def next_deadline(self, now: float) -> float | None:
        """Return when the clock alone may change ``releasable`` or ``overdue``."""
        times = [self._leases.next_end(), self._drains.next_deadline(now)]
        return min((at for at in times if at is not None), default=None)

    def close(self) -> None:
        """Refuse new requests: this replica is stopping. What is in flight goes on."""
        self._closing = True
        self._changed()

    # What people and adapters may see

    @property
    def synced(self) -> bool:
        """Whether a whole list has been seen: before that, a name that is not known may well be served."""
        return self._synced

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return every name a request may use, with the namespaces that serve it."""
        return self._registry.names()

    def in_flight(self) -> int:
        """Return how many attempts are in flight at this replica."""
        return len(self._ledger)

    def held(self, now: float) -> Held:
        """Return what a replica that wants to stop waits for."""
        oldest, leases = self._ledger.oldest(), len(self._leases)
        return Held(len(self._ledger) - leases, leases, 0.0 if oldest is None else now - oldest.started_at)

    def endpoint(self, uid: str) -> EndpointStatus | None:
        """Return one endpoint as the core sees it now; None when there is none of that uid."""
        spec = self._registry.specs.get(uid)
        return None if spec is None else self._endpoint_status(spec)

    def standings(self) -> Iterator[tuple[str, str, EndpointState, int]]:
        """Yield uid, server, state and requests in flight of each endpoint: ``status`` of thousands takes long."""
        endpoints = self._registry.endpoints
        for uid, spec in self._registry.specs.items():
            endpoint = endpoints[uid]
            yield uid, spec.server, endpoint.state, endpoint.in_flight

    def status(self) -> RouterStatus:
        """Return everything the core knows, as values."""
        return RouterStatus(
            servers=tuple(self._registry.servers.values()),
            endpoints=tuple(self._endpoint_status(spec) for spec in self._registry.specs.values()),
            in_flight=len(self._ledger),
            drains=len(self._drains),
            outcomes={outcome.value: self.outcomes[outcome] for outcome in Outcome},
            pools=self.quality(),
            waiting=self.waiting(),
        )

    def _endpoint_status(self, spec: EndpointSpec) -> EndpointStatus:
        endpoint = self._registry.endpoints[spec.uid]
        return EndpointStatus(
            uid=spec.uid,
            server=spec.server,
            name=spec.name,
            address=spec.address,
            node=spec.node,
            state=endpoint.state,
            in_flight=endpoint.in_flight,
            unknown=len(endpoint.unknown),
            capacity=spec.capacity,
            gpu_memory_gb=spec.gpu_memory_gb,
            reason=spec.reason,
            reading=endpoint.reading,
            unreached=endpoint.unreached,
        )

    def _changed(self) -> None:
        self.revision += 1
        self.on_change()


def _manual(generation: int, now: float) -> Mark:
    return Mark(DrainKind.MANUAL, DrainReason.MANUAL, now, generation=generation)


def _provisional(spec: EndpointSpec, now: float) -> Mark:
    return Mark(DrainKind.PROVISIONAL, DrainReason.GATE, now, incarnation=spec.incarnation)
