"""Who chooses in a simulation: the core's own router under any of its strategies, or a rule of somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tailrace.core.model import (
    EndpointSpec,
    ModelSpec,
    Outcome,
    Pick,
    PoolSettings,
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


@dataclass(frozen=True, slots=True)
class Setting:
    """What balancers are set up with. A peer's rule has one router that sees all, whatever is asked for."""

    block_tokens: int
    rng: Random
    capacity: int
    routers: int = 1


class Balancer(Protocol):
    """Chooses endpoints by number, and is told what a proxy would see."""

    def choose(self, job: Job, now: float) -> int | None:
        """Return where the request goes; None: nowhere now."""
        ...

    def first_token(self, job: Job, now: float) -> None:
        """Note the first token of a request that was sent."""
        ...

    def ended(self, job: Job, now: float) -> None:
        """Note the end of a request that was sent."""
        ...


class CoreBalancer:
    """Routers of the core as proxies use them: they see what proxies see, no speeds, no caches, no queues.

    Of several ``routers`` each gets some of the requests, by chance, and knows of no others.
    """

    def __init__(self, strategy: str, engines: int, setting: Setting) -> None:
        self._rng = setting.rng
        self._routers = [_router(strategy, engines, setting, number) for number in range(setting.routers)]
        self._sent: dict[int, tuple[Router, str]] = {}
        self._block_tokens = setting.block_tokens

    def choose(self, job: Job, now: float) -> int | None:
        """Return what a router picks."""
        router = self._routers[0] if len(self._routers) == 1 else self._rng.choice(self._routers)
        pick = router.acquire(self._request(job), now)
        if not isinstance(pick, Pick):
            return None
        self._sent[job.number] = router, pick.attempt
        return int(pick.address)

    def first_token(self, job: Job, now: float) -> None:
        """Note the first byte."""
        router, attempt = self._sent[job.number]
        router.first_byte(attempt, now)

    def ended(self, job: Job, now: float) -> None:
        """Release the attempt, with what the engine counted."""
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
        return Request(MODEL, arrival.prompt + OUTPUT_TOKENS, traits=traits)


def _router(strategy: str, engines: int, setting: Setting, number: int) -> Router:
    made = Router(f"r{number}", booted_at=0.0, rng=setting.rng)
    server = ServerSpec("s/s", "s", (ModelSpec(MODEL),), pool=PoolSettings(strategy))
    endpoints = tuple(
        EndpointSpec(f"e{n}", "s/s", f"e{n}", str(n), setting.capacity, ready=True, gpu_memory_gb=80)
        for n in range(engines)
    )
    made.apply(Snapshot((server,), endpoints), 0.0)
    made.set_members(frozenset(f"r{n}" for n in range(setting.routers)), 0.0)
    return made


class RuleBalancer:
    """One of the peers' rules, with the counts that it needs."""

    def __init__(self, rule: Callable[[int, int, Random], Rule], engines: Sequence[Engine], setting: Setting) -> None:
        self._rule = rule(len(engines), setting.block_tokens, setting.rng)
        self._engines = engines
        self._at: dict[int, int] = {}

    def choose(self, job: Job, now: float) -> int | None:
        """Return what the rule says."""
        chosen = self._at[job.number] = self._rule(job.arrival, self._engines, now)
        return chosen

    def first_token(self, job: Job, now: float) -> None:  # noqa: ARG002 - only choosing takes time into account
        """Tell the rule."""
        self._rule.began(job.arrival, self._at[job.number])

    def ended(self, job: Job, now: float) -> None:  # noqa: ARG002 - rules know no time
        """Tell the rule."""
        self._rule.ended(job.arrival, self._at.pop(job.number))


def names() -> list[str]:
    """Return everybody who may choose: the core's strategies, then the peers' rules."""
    return [*STRATEGIES, *PEERS]


def balancer(name: str, engines: Sequence[Engine], setting: Setting) -> Balancer:
    """Return the one of that name; ValueError names those there are."""
    if name in PEERS:
        return RuleBalancer(PEERS[name], engines, setting)
    if name in STRATEGIES:
        return CoreBalancer(name, len(engines), setting)
    raise ValueError(f"no strategy {name!r}; there are {', '.join(names())}")
