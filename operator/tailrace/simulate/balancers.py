"""Who chooses in a simulation: the core's own router under any of its strategies, or a rule of somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from tailrace.core.model import (
    EndpointSpec,
    ModelSpec,
    Outcome,
    Pick,
    PoolSettings,
    Refusal,
    Request,
    ServerSpec,
    Snapshot,
    Traits,
    Usage,
)
from tailrace.core.router import Router
from tailrace.core.strategies import STRATEGIES
from tailrace.simulate.engine import Engine, Job
from tailrace.simulate.peers import PEERS, Rule

MODEL = "simulated"
OUTPUT_TOKENS = 512
"""What an answer counts in the estimate of a request, as the doors' setting does by default."""
ENDLESS = 1_000_000_000
"""Nothing is refused in a simulation, however many wait, and nobody gives up."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What balancers are set up with. A peer's rule has one router that sees all, whatever is asked for."""

    block_tokens: int
    rng: Random
    capacity: int
    routers: int = 1


Place = Callable[[Job, int, float], None]
"""(job, engine, now): the job goes to that engine now."""


class Balancer(Protocol):
    """Chooses endpoints by number, and is told what a proxy would see."""

    def arrived(self, job: Job, now: float) -> None:
        """Place the request, now or when there is a slot for it."""
        ...

    @property
    def waits(self) -> bool:
        """Whether some request was not placed yet."""
        ...

    def tick(self, now: float) -> None:
        """Place what can be placed because time went by; called a few times a second while requests wait."""
        ...

    def first_token(self, job: Job, now: float) -> None:
        """Note the first token of a request that was sent."""
        ...

    def ended(self, job: Job, now: float) -> None:
        """Note the end of a request that was sent."""
        ...


class CoreBalancer:
    """Routers of the core as proxies use them: they see what proxies see, no speeds, no caches, no queues.

    Of several ``routers`` each gets some of the requests, by chance, and knows of no others. What finds no slot waits.
    """

    def __init__(self, strategy: str, engines: int, setting: Setting, place: Place) -> None:
        self._rng = setting.rng
        self._place = place
        self._routers = [_router(strategy, engines, setting, number) for number in range(setting.routers)]
        self._sent: dict[int, tuple[Router, str]] = {}
        self._block_tokens = setting.block_tokens
        self._now = 0.0

    def arrived(self, job: Job, now: float) -> None:
        """Place it where a router picks."""
        self._now = now
        router = self._routers[0] if len(self._routers) == 1 else self._rng.choice(self._routers)
        request = self._request(job)
        pick = router.acquire(request, now)
        if isinstance(pick, Pick):
            self._picked(router, job, pick)
        else:
            router.wait(request, now, partial(self._picked, router, job))

    def _picked(self, router: Router, job: Job, pick: Pick | Refusal) -> None:
        if not isinstance(pick, Pick):
            raise TypeError(f"a request that may wait for ever was refused: {pick.message}")
        self._sent[job.number] = router, pick.attempt
        self._place(job, int(pick.address), self._now)

    @property
    def waits(self) -> bool:
        """Whether some request waits at a router."""
        return any(router.waiting() for router in self._routers)

    def tick(self, now: float) -> None:
        """Have the routers look at the clock."""
        self._now = now
        for router in self._routers:
            router.tick(now)

    def first_token(self, job: Job, now: float) -> None:
        """Note the first byte."""
        self._now = now
        router, attempt = self._sent[job.number]
        router.first_byte(attempt, now)

    def ended(self, job: Job, now: float) -> None:
        """Release the attempt, with what the engine counted."""
        self._now = now
        router, attempt = self._sent.pop(job.number)
        router.release(attempt, Outcome.COMPLETED, now, Usage(job.arrival.prompt, job.arrival.output, job.cached))

    def _request(self, job: Job) -> Request:
        arrival = job.arrival
        traits = Traits(
            prompt_tokens=arrival.prompt,
            session=arrival.session,
            prefix=arrival.chain[0] if arrival.chain else None,
            chain=arrival.chain,
            block_tokens=self._block_tokens,
            streams=True,
        )
        return Request(MODEL, arrival.prompt + OUTPUT_TOKENS, traits=traits, patient=True)


def _router(strategy: str, engines: int, setting: Setting, number: int) -> Router:
    made = Router(f"r{number}", booted_at=0.0, rng=setting.rng)
    server = ServerSpec("s/s", "s", (ModelSpec(MODEL),), pool=PoolSettings(strategy, queue_size=ENDLESS))
    endpoints = tuple(
        EndpointSpec(f"e{n}", "s/s", f"e{n}", str(n), setting.capacity, ready=True, gpu_memory_gb=80)
        for n in range(engines)
    )
    made.apply(Snapshot((server,), endpoints), 0.0)
    made.set_members(frozenset(f"r{n}" for n in range(setting.routers)), 0.0)
    return made


class RuleBalancer:
    """One of the peers' rules, with the counts that it needs."""

    def __init__(
        self, rule: Callable[[int, int, Random], Rule], engines: Sequence[Engine], setting: Setting, place: Place
    ) -> None:
        self._rule = rule(len(engines), setting.block_tokens, setting.rng)
        self._engines = engines
        self._at: dict[int, int] = {}
        self._place = place

    def arrived(self, job: Job, now: float) -> None:
        """Place it where the rule says, at once."""
        chosen = self._at[job.number] = self._rule(job.arrival, self._engines, now)
        self._place(job, chosen, now)

    @property
    def waits(self) -> bool:
        """Return False: rules send at once."""
        return False

    def tick(self, now: float) -> None:
        """Nothing to do: rules send at once."""

    def first_token(self, job: Job, now: float) -> None:  # noqa: ARG002 - only choosing takes time into account
        """Tell the rule."""
        self._rule.began(job.arrival, self._at[job.number])

    def ended(self, job: Job, now: float) -> None:  # noqa: ARG002 - rules know no time
        """Tell the rule."""
        self._rule.ended(job.arrival, self._at.pop(job.number))


def names() -> list[str]:
    """Return everybody who may choose: the core's strategies, then the peers' rules."""
    return [*STRATEGIES, *PEERS]


def balancer(name: str, engines: Sequence[Engine], setting: Setting, place: Place) -> Balancer:
    """Return the one of that name; ValueError names those there are."""
    if name in PEERS:
        return RuleBalancer(PEERS[name], engines, setting, place)
    if name in STRATEGIES:
        return CoreBalancer(name, len(engines), setting, place)
    raise ValueError(f"no strategy {name!r}; there are {', '.join(names())}")
