"""Short ways to say what is observed, for the tests of the core."""

from random import Random

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import (
    Deletion,
    DrainReason,
    DrainSpec,
    EndpointSeen,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    ModelSpec,
    Pick,
    PoolSettings,
    Refusal,
    RefusalCode,
    Release,
    Request,
    ServerSeen,
    ServerSpec,
    Timeouts,
)
from tailrace.core.pool import Pool
from tailrace.core.router import Router

ME, OTHER, THIRD = "me-1", "other-1", "third-1"
BOOT = 1000.0
TOTAL = 600.0
SETTLE = 2.0
MODEL = "llama"


def endpoint(uid: str, capacity: int = 4, memory: int = 80, added: int = 0, *, ready: bool = True) -> Endpoint:
    """Return an endpoint, ready unless said otherwise."""
    made = Endpoint(uid, address=f"{uid}:8000", capacity=capacity, gpu_memory_gb=memory, added=added)
    if ready:
        made.on(Event.SEEN_READY)
    return made


def pool(*endpoints: Endpoint, strategy: str = "WeightedLeastConnections", seed: int = 0) -> Pool:
    """Return a pool of these endpoints."""
    made = Pool(PoolSettings(strategy=strategy), Random(seed))
    for each in endpoints:
        made.add(each)
    return made


def server(
    name: str = "s",
    *models: ModelSpec,
    namespace: str = "ns",
    created_at: float = 1.0,
    total: float = TOTAL,
    strategy: str = "WeightedLeastConnections",
) -> ServerSpec:
    """Return a server of one model, or of those given."""
    return ServerSpec(
        key=f"{namespace}/{name}",
        namespace=namespace,
        models=models or (ModelSpec(MODEL),),
        created_at=created_at,
        timeouts=Timeouts(total=total),
        pool=PoolSettings(strategy=strategy),
    )


def pod(
    uid: str,
    *,
    of: str = "ns/s",
    capacity: int = 4,
    memory: int | None = 80,
    ready: bool = True,
    version: int = 1,
    incarnation: str = "c1",
    created_at: float = BOOT + 1,
    deleted_at: float | None = None,
    timeout: float = 60.0,
    reason: DrainReason = DrainReason.DELETE,
    cordon: int | None = None,
    gate_mark: str | None = None,
    ended: bool = False,
    address: str | None = None,
) -> EndpointSpec:
    """Return a pod of the server as observed; ``deleted_at`` is when its deletion was asked for."""
    deletion = None if deleted_at is None else Deletion(deleted_at, deleted_at + timeout, reason)
    return EndpointSpec(
        uid=uid,
        server=of,
        name=f"pod-{uid}",
        address=address or f"{uid}:8000",
        capacity=capacity,
        ready=ready and deletion is None,
        gpu_memory_gb=memory,
        node="node-1",
        reason="" if ready else "is loading",
        version=version,
        incarnation=incarnation,
        created_at=created_at,
        deletion=deletion,
        cordon=cordon,
        gate_mark=gate_mark,
        ended=ended,
        drain=DrainSpec(timeout=timeout, settle=SETTLE),
    )


def router(*pods: EndpointSpec, servers: tuple[ServerSpec, ...] = (), members: frozenset[str] = frozenset()) -> Router:
    """Return a router that has seen the server (or those given) and these pods."""
    made = Router(ME, booted_at=BOOT, rng=Random(0))
    for each in servers or (server(),):
        made.apply(ServerSeen(each), BOOT)
    see(made, BOOT, *pods)
    made.set_members(members, BOOT)
    return made


def see(of: Router, now: float, *pods: EndpointSpec) -> None:
    """Let the router observe these pods."""
    for spec in pods:
        of.apply(EndpointSeen(spec), now)


def pick(
    of: Router,
    now: float = BOOT,
    *,
    model: str = MODEL,
    tokens: int = 1,
    leased: bool = False,
    avoid: frozenset[str] = frozenset(),
    namespace: str | None = None,
) -> Pick:
    """Acquire; a refusal fails the test."""
    request = Request(model, tokens, namespace, avoid, leased)
    answer = of.acquire(request, now)
    assert isinstance(answer, Pick), answer
    return answer


def refusal(of: Router, now: float = BOOT, request: Request | None = None) -> Refusal:
    """Acquire; a pick fails the test."""
    answer = of.acquire(request or Request(MODEL), now)
    assert isinstance(answer, Refusal), answer
    return answer


def refused(of: Router, now: float = BOOT, request: Request | None = None) -> RefusalCode:
    """Acquire; return why not."""
    return refusal(of, now, request).code


def status(of: Router, uid: str) -> EndpointStatus:
    """Return how an endpoint stands."""
    return next(each for each in of.status().endpoints if each.uid == uid)


def state(of: Router, uid: str) -> EndpointState:
    """Return an endpoint's state."""
    return status(of, uid).state


def released(of: Router, now: float) -> dict[str, Release]:
    """Return the drains that are over, by uid."""
    return {release.uid: release for release in of.releasable(now)}
