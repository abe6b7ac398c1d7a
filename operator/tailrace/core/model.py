"""The values that cross the core's border: what is observed, asked, answered.

Everything here is immutable. Times are seconds since the epoch on the one clock that the adapters pass in
(anchored to the wall clock at start, monotonic afterwards); durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class EndpointState(Enum):
    """Where an endpoint is in its life; the transitions are the table in ``core.endpoint``."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"
    GONE = "gone"


class DrainReason(Enum):
    """Why an endpoint drains, as users meet it in annotations, status and metrics."""

    DELETE = "delete"
    ROLLOUT = "rollout"
    SCALE_DOWN = "scale-down"
    EVICTION = "eviction"
    MANUAL = "manual"
    GATE = "gate"


class DrainOutcome(Enum):
    """How a drain ended. ENDED: nothing runs there (vanished, terminal, node gone), or it was never routable."""

    DRAINED = "drained"
    DEADLINE = "deadline"
    ENDED = "ended"


class Grade(Enum):
    """How evenly the endpoints of a pool are used."""

    EXCELLENT = "Excellent"
    GOOD = "Good"
    FAIR = "Fair"
    POOR = "Poor"


class Outcome(Enum):
    """How one attempt ended, as the door that carried it saw it."""

    COMPLETED = "completed"
    CLIENT_GONE = "client-gone"
    REROUTED = "rerouted"
    FAILED = "failed"
    LOST = "lost"
    CUT = "cut"
    EXPIRED = "expired"

    # An end is counted for each request, and the hash of an enum is computed from its name, in Python.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of a server: the name users ask for, its aliases, its adapters, and what the engine calls it."""

    name: str
    aliases: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    served_name: str | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one request, in seconds."""

    connect: float = 5.0
    first_byte: float = 300.0
    idle: float = 120.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class DrainSpec:
    """How an endpoint drains, in seconds: how long at most, and how long to wait for late news after all agreed."""

    timeout: float = 600.0
    settle: float = 2.0
    shutdown: float = 10.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a pool takes from its oldest server. The fields below the first three are read by some strategies only.

    ``weight_by``: Capacity, Explicit or Hardware. ``latency``: Mean or P95. ``session_header`` names the header that
    holds the session, ``session_ttl`` is how many seconds one is remembered after its last request, ``hard_sessions``
    refuses a request rather than send it elsewhere while its endpoint is full. ``max_load_percent`` is how far above
    the pool's mean load ratio an endpoint may be to be given a request for its prefix or session.
    ``read_engines``: WhenNeeded, Always or Never, every ``engine_interval`` seconds. ``max_kv_usage`` is the share of
    the KV cache in use above which an endpoint is avoided. ``score_weights`` are those of DynamicScore in percent: GPU,
    GPU memory, queue, latency. ``spill_percent`` is the share of a preferred endpoint's capacity that may be in use
    before others are used. ``fallback`` is the strategy of a pool that has been Poor for ``fallback_after`` seconds,
    for the next ``fallback_for`` of them; empty: the strategy stays. ``queue_size`` is how many requests may wait for a
    slot at each replica, each for at most ``queue_seconds``; 0: none waits.
    """

    strategy: str = "LeastEstimatedTTFT"
    long_prompt_tokens: int = 4096
    long_prompt_min_gpu_memory_gb: int = 80
    weight_by: str = "Capacity"
    latency: str = "Mean"
    session_header: str = "x-session-id"
    session_ttl: float = 3600.0
    hard_sessions: bool = False
    max_load_percent: int = 125
    read_engines: str = "WhenNeeded"
    engine_interval: float = 1.0
    max_kv_usage: float = 0.9
    score_weights: tuple[int, int, int, int] = (30, 30, 20, 20)
    spill_percent: int = 80
    fallback: str = ""
    fallback_after: float = 300.0
    fallback_for: float = 1800.0
    queue_size: int = 1000
    queue_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """An InferenceServer as the core needs it. ``key`` is ``namespace/name``."""

    key: str
    namespace: str
    models: tuple[ModelSpec, ...]
    engine: str = "vllm"
    created_at: float = 0.0
    pool: PoolSettings = field(default_factory=PoolSettings)
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion that Kubernetes has recorded: absorbing, whatever older news still arrives.

    ``started_at`` is deletionTimestamp - deletionGracePeriodSeconds; ``deadline`` is when the drain ends at the latest.
    """

    started_at: float
    deadline: float
    reason: DrainReason = DrainReason.DELETE


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint as observed: a pod, or a fixed address. Keyed by ``uid``, because addresses are reused.

    ``version`` orders observations of one uid (resourceVersion); ``incarnation`` changes when a container restarts;
    ``ended`` says that nothing can run there any more (terminal phase, containers terminated, node gone);
    ``cordon`` is the generation of a manual drain, None without one; ``gate_mark`` the incarnation whose gate called
    without a deletion, as marked on the pod; ``reason`` says why it is not ready. ``weight`` and ``gpu_tflops`` (dense
    FP16 of all its GPUs) are for strategies that weigh. ``zone`` is that of its node, empty when it is not known.
    ``backup``: to be used only while no other is available.
    """

    uid: str
    server: str
    name: str
    address: str
    capacity: int
    ready: bool
    gpu_memory_gb: int | None = None
    node: str = ""
    reason: str = ""
    version: int = 0
    incarnation: str = ""
    created_at: float = 0.0
    deletion: Deletion | None = None
    cordon: int | None = None
    gate_mark: str | None = None
    ended: bool = False
    drain: DrainSpec = field(default_factory=DrainSpec)
    weight: int = 1
    gpu_tflops: int | None = None
    zone: str = ""
    backup: bool = False

    @property
    def fit(self) -> bool:
        """Whether it could be given requests, as observed."""
        return self.ready and self.deletion is None and not self.ended

    @property
    def is_pod(self) -> bool:
        """Whether it is a pod; a fixed address has no object that could be marked, and was never created."""
        return self.created_at > 0


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine says how it is doing, and how often to ask it, in seconds."""

    address: str
    engine: str
    interval: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine says of itself at one moment, whoever its requests come from. None: not told, so unknown.

    ``running`` and ``waiting`` are requests, ``slots`` how many it runs at once. ``kv_usage``, ``gpu_usage`` and
    ``gpu_memory`` are shares of 0..1; ``gpu_bytes`` is memory in use where the whole is not told. ``adapters`` are
    those it works with now.
    """

    running: float | None = None
    waiting: float | None = None
    slots: int | None = None
    kv_usage: float | None = None
    gpu_usage: float | None = None
    gpu_memory: float | None = None
    gpu_bytes: int | None = None
    adapters: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica is: the names of its node and of its zone, empty when they are not known."""

    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """What one member says of an endpoint that it drains.

    ``in_flight`` is what it has there, counting what is unknown; ``marks`` are the keys of the marks it drains for.
    """

    in_flight: int
    marks: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """A server exists, with this specification."""

    spec: ServerSpec


@dataclass(frozen=True, slots=True)
class ServerGone:
    """A server was deleted: its names answer 404 unless another serves them."""

    key: str


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """An endpoint exists, in this condition."""

    spec: EndpointSpec


@dataclass(frozen=True, slots=True)
class EndpointGone:
    """An endpoint's object is gone. The uid of a deleted pod never returns; one that was only taken out may."""

    uid: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole truth at one moment: what it does not name is gone. Only ever made from a list that succeeded."""

    servers: tuple[ServerSpec, ...]
    endpoints: tuple[EndpointSpec, ...]


Observation = ServerSeen | ServerGone | EndpointSeen | EndpointGone | Snapshot


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pool's strategy wants to know of a request beyond model and tokens; a door need not find out more.

    ``lengths``: tokens of prompt and answer. ``session_header``: the header that names the session, empty for none.
    ``prefix``: the hash of the first block; ``chain``: those of all blocks. ``usage``: what the engine counted, at the
    end.
    """

    lengths: bool = False
    session_header: str = ""
    prefix: bool = False
    chain: bool = False
    usage: bool = False


@dataclass(frozen=True, slots=True)
class Traits:
    """What a door found out of a request because the strategy ``needs`` it.

    ``output_tokens`` is the most that the client allows, 0 when it does not say. ``session`` is empty without one.
    ``prefix`` is a hash of the prompt's beginning that every replica agrees on. ``chain`` has a hash for each whole
    block of ``block_tokens`` estimated tokens of the prompt, each covering all before it, for this process alone.
    ``streams``: the first byte of the answer comes with its first token, and the door will see it.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    session: str = ""
    prefix: int | None = None
    chain: tuple[int, ...] = ()
    block_tokens: int = 128
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What the engine counted of one request, in tokens; None is what it did not tell.

    ``cached_tokens`` are those of the prompt that it did not have to compute.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class Request(NamedTuple):
    """What the pick needs to know of a request.

    ``tokens`` is the estimate of prompt and output; ``namespace`` narrows an ambiguous name; ``avoid`` are uids that
    an earlier attempt of the same request met; ``leased`` marks a door that cannot see the end of the request;
    ``traits`` is what the pool's strategy needs besides, None when it needs nothing. ``subset`` are the addresses that
    a gateway allows, None: all. ``patient``: the door lets it wait where the pool has a queue.
    """

    model: str
    tokens: int = 1
    namespace: str | None = None
    avoid: frozenset[str] = frozenset()
    leased: bool = False
    traits: Traits | None = None
    subset: frozenset[str] | None = None
    patient: bool = False

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt of the same request was made."""
        return bool(self.avoid)


class Pick(NamedTuple):
    """The endpoint chosen for one attempt; the attempt is in flight until it is released.

    ``rewrite`` is the name the engine knows the model by, when it differs from the name asked for, else None.
    ``expires_at`` is when the lease ends, for leased attempts.
    """

    attempt: str
    uid: str
    address: str
    rewrite: str | None
    timeouts: Timeouts
    expires_at: float | None


class Standing(Enum):
    """What a pick would make of an endpoint. COMPARED: drawn, and not the best; ABLE: qualifies, and was not drawn."""

    PICKED = "picked"
    COMPARED = "compared"
    ABLE = "able"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint of a pool as a pick would see it for a request.

    ``against`` says which filters keep the request from it; ``parts`` are the figures that its score is made of, the
    one that is compared by the name ``score``, lower being better. ``unreached``: connections that failed in a row.
    """

    uid: str
    name: str
    address: str
    standing: Standing
    state: EndpointState
    in_flight: int
    limit: int
    against: tuple[str, ...]
    parts: Mapping[str, float]
    unreached: int = 0


class RefusalCode(Enum):
    """Why no endpoint was chosen. The value is what clients read in ``x-tailrace-dropped-reason`` or ``error.code``."""

    UNKNOWN_MODEL = "model_not_found"
    AMBIGUOUS_MODEL = "model_ambiguous"
    NO_ENDPOINTS = "rejected-no-endpoints"
    SATURATED = "rejected-saturated"
    WAITED_OUT = "rejected-ttl-expired"
    NOT_QUALIFIED = "rejected-no-qualified-endpoints"
    NOT_SYNCED = "rejected-not-synced"
    SHUTTING_DOWN = "rejected-shutting-down"


@dataclass(frozen=True, slots=True)
class Refusal:
    """No endpoint, why, and in how many seconds it makes sense to ask again (None: it does not)."""

    code: RefusalCode
    message: str
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a pick would make of a request, without making it.

    ``refusal`` is the answer when nobody would be picked. ``candidates`` begin with the one that would be; those that
    were compared follow, then who is able, then who is filtered. ``elsewhere`` counts endpoints of other models. Where
    the name leads to no pool, ``pool`` and ``strategy`` are empty. ``waiting`` requests wait in the pool already;
    ``would_wait``: so would this one, if it may: behind them, for a slot, or because all that were compared have enough
    to do for now.
    """

    refusal: Refusal | None
    pool: str = ""
    strategy: str = ""
    candidates: tuple[Candidate, ...] = ()
    elsewhere: int = 0
    waiting: int = 0
    would_wait: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """A drain that is over: the pod's finalizer may go. The figures go into the Event and the status."""

    uid: str
    reason: DrainReason
    outcome: DrainOutcome
    started_at: float
    ended_at: float
    in_flight_at_start: int
    finished: int
    lost: int


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint as the core sees it now. ``reading`` is what its engine says, None while that is unknown.

    ``unreached``: so many connections of this replica in a row could not be made.
    """

    uid: str
    server: str
    name: str
    address: str
    node: str
    state: EndpointState
    in_flight: int
    unknown: int
    capacity: int
    gpu_memory_gb: int | None
    reason: str
    reading: Reading | None = None
    unreached: int = 0


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """One drain as gates and people ask about it. ``safe_to_delete``: nothing is in flight anywhere, or time is up.

    ``waiting_for``: the other members that have not acknowledged it, or have something in flight there.
    """

    uid: str
    state: EndpointState
    in_flight: int
    safe_to_delete: bool
    deadline: float | None
    reason: DrainReason | None
    waiting_for: tuple[str, ...] = ()


class Held(NamedTuple):
    """What is in flight at this replica: attempts that doors carry, leases, and for how long the oldest of them."""

    carried: int
    leases: int
    seconds: float


class Spread(NamedTuple):
    """How much values differ: their coefficient of variation, and (max - min) / max."""

    cv: float
    imbalance: float


@dataclass(frozen=True, slots=True)
class PoolQuality:
    """How evenly a pool is used, by the requests of this replica. None: too little goes on to tell.

    ``servers`` are the keys of those whose endpoints it has; ``strategy`` is the one at work.
    """

    pool: str
    servers: tuple[str, ...]
    strategy: str
    grade: Grade | None = None
    load: Spread | None = None
    latency: Spread | None = None


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """Everything the core knows, for status, metrics and people.

    ``outcomes`` counts attempts by how they ended; ``waiting`` says how many requests wait for a slot of each pool.
    """

    servers: tuple[ServerSpec, ...]
    endpoints: tuple[EndpointStatus, ...]
    in_flight: int
    drains: int
    outcomes: Mapping[str, int]
    pools: tuple[PoolQuality, ...] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)
