"""A small model checker for the barrier: every order of what may happen to a few replicas and one pod.

The world is values; its replicas are real routers, carried as pickles. Breadth first, so that what is found is a
shortest story. What is not done is delayed: a replica that is paused simply takes no step, and a message is the right
to deliver any word that its sender ever said, in any order and as often as one likes.

The promise: while somebody says that the pod may go, nothing is in flight there, not even by the lease of a replica
that has died, and no request is sent there any more. Times only grow, so that no timer ever holds anything up.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, NamedTuple

from tests.core.world import MODEL, pod, server

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import (
    Deletion,
    DrainReason,
    DrainSpec,
    EndpointSeen,
    EndpointSpec,
    Outcome,
    Pick,
    Request,
    ServerSeen,
    Snapshot,
    Word,
)
from tailrace.core.router import Router

FOREVER = 1e9
STEP_SECONDS = 10.0
POD = "a"
Words = tuple[tuple[str, Word], ...]
Reading = tuple[int, frozenset[str], frozenset[str]]
"""A list of members: the number it answers, the members, those that left."""
Step = tuple[str, Callable[[], "World | None"]]


class Dice(Random):
    """Chance that is quick to copy; with one pod there is nothing to choose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Dice, (0,)


class Violation(Exception):  # noqa: N818 - it is what the search is for
    """The promise is broken; the text is the story."""


class Flight(NamedTuple):
    """A request on its way: who gave it, under which id, to which container; leases outlive whoever gave them."""

    by: str
    attempt: str
    container: str
    leased: bool


class Facts(NamedTuple):
    """Everything in a router that its next steps depend on, but for times; routers of equal facts behave alike.

    ``list``: what it knows of the members; ``open``: each attempt in flight, and whether it is leased; ``drain``: the
    key of its drain; ``over``: whether it calls that drain over; ``unmarked``: the incarnation it wants marked;
    ``asks``: whether it has a question for the engine.
    """

    list: Reading
    picks: int
    open: frozenset[tuple[str, bool]]
    endpoint: tuple[object, ...]
    drain: str | None
    over: bool
    durable: tuple[object, ...]
    agreed: frozenset[str]
    heard: frozenset[tuple[str, Word]]
    says: Words
    unmarked: str | None
    asks: bool


class Peer(NamedTuple):
    """A replica.

    ``router`` is a pickle; ``seen`` the pod's version it has seen (-1: none); ``reading`` a list on its way to it;
    ``said`` every word it ever said.
    """

    name: str
    router: bytes
    facts: Facts
    seen: int
    reading: Reading | None
    said: tuple[Words, ...]
    alive: bool


@dataclass(frozen=True)
class World:
    """``registry``: name -> (member, whether its pod is there). ``promised``: marks of drains called over."""

    versions: tuple[EndpointSpec, ...]
    peers: tuple[tuple[str, Peer], ...]
    registry: tuple[tuple[str, str, bool], ...]
    flights: frozenset[Flight] = frozenset()
    promised: frozenset[str] = frozenset()
    left: tuple[str, ...] = ()

    def key(self) -> tuple[object, ...]:
        """Return what two worlds have in common that are the same for all that may still happen."""
        peers = tuple((who, peer._replace(router=b"")) for who, peer in self.peers)
        return (self.versions, peers, self.registry, self.flights, self.promised, self.left)

    @property
    def pod(self) -> EndpointSpec:
        """The pod as the API server has it."""
        return self.versions[-1]

    def peer(self, who: str) -> Peer:
        """Return a replica."""
        return dict(self.peers)[who]

    def with_peer(self, who: str, peer: Peer) -> World:
        """Return the world with this replica in its place, or added."""
        peers = dict(self.peers) | {who: peer}
        return replace(self, peers=tuple(sorted(peers.items())))


def ignore() -> None:
    """Be told of changes and do nothing."""


@dataclass
class Scenario:
    """What may happen, each at most so often. ``rules`` are those of the world that a test may take away."""

    name: str
    start: tuple[str, ...] = ("r0", "r1")
    happen: tuple[str, ...] = ()
    requests: tuple[bool, ...] = (False,)
    """Whether each request is leased."""
    lists_before_registering: bool = False
    forgets_the_silent: bool = False
    router: type[Router] = field(default=Router)
    _done: dict[tuple[object, ...], tuple[bytes, Facts, object]] = field(default_factory=dict)

    def world(self) -> World:
        """Return the beginning: replicas that know one ready pod and each other."""
        spec = replace(pod(POD, created_at=1.0), drain=DrainSpec(FOREVER, 0.0))
        world = World((spec,), (), (), left=(*self.happen, *(f"request{n}" for n in range(len(self.requests)))))
        everybody = frozenset(f"{name}.1" for name in self.start)
        for name in self.start:
            router = self.make(f"{name}.1", 0.0)
            router.apply(ServerSeen(replace(server(total=FOREVER))), 0.0)
            router.apply(EndpointSeen(spec), 0.0)
            router.set_members(everybody, 0.0, answers=router.members_wanted)
            world = self.stored(
                world, f"{name}.1", Peer(name, b"", facts(router, 0.0), 0, None, (), alive=True), router
            )
        return replace(world, registry=tuple((name, f"{name}.1", True) for name in self.start))

    def make(self, member: str, now: float) -> Router:
        """Return the router of a replica that starts."""
        router = self.router(member, booted_at=now, rng=Dice(0), alone=False)
        router.on_change = ignore
        return router

    # Everything a replica does ends here

    def act(
        self, world: World, who: str, now: float, label: object, do: Callable[[Router], object], **change: object
    ) -> tuple[World, object]:
        """Let a replica do something; ``label`` says what, so that equal replicas need to do it once only."""
        peer = world.peer(who)
        done = (who, peer.facts, label)
        if done not in self._done:
            router: Router = pickle.loads(peer.router)
            answer = do(router)
            router.releasable(now)
            self._done[done] = (pickle.dumps(router, 5), facts(router, now), answer)
        image, after, answer = self._done[done]
        return self.put(world, who, peer._replace(router=image, facts=after, **change)), answer  # type: ignore[arg-type]

    def stored(self, world: World, who: str, peer: Peer, router: Router) -> World:
        """Store a replica that begins."""
        return self.put(world, who, peer._replace(router=pickle.dumps(router, 5)))

    def put(self, world: World, who: str, peer: Peer) -> World:
        """Store the replica after a step, with what it says now; look at what it promises."""
        says = peer.facts.says
        said = peer.said if not says or says in peer.said[-1:] else (*peer.said, says)
        world = world.with_peer(who, peer._replace(said=said))
        key = peer.facts.drain
        if key is None or not peer.facts.over:
            return world
        if broken := [flight for flight in world.flights if concerns(key, flight.container)]:
            raise Violation(f"{who} calls the drain {key} over while {broken}")
        return replace(world, promised=world.promised | {key})

    # What may happen next

    def steps(self, world: World, now: float) -> Iterator[Step]:
        """Yield the name of each step and what it makes of the world, None when it is not possible."""
        for flight in sorted(world.flights):
            yield f"{flight.attempt} ends", partial(self.end, world, flight, now)
        for who, peer in world.peers:
            if peer.alive:
                yield from self.does(world, who, now)
                yield from self.meets(world, who, now)
                yield from self.sees(world, who, peer, now)
                yield from self.hears(world, who, now)
        if "delete" in world.left:
            yield "delete", lambda: self.delete(self.used(world, "delete"))
        if "join" in world.left:
            yield "join", lambda: self.born(self.used(world, "join"), "new", now)
        if "containers" in world.left and f"gate/{world.pod.incarnation}" in world.promised:
            yield "the container is replaced", lambda: self.new_container(self.used(world, "containers"))

    def does(self, world: World, who: str, now: float) -> Iterator[Step]:
        """Yield what a replica may do by itself."""
        for what in dict.fromkeys(each for each in world.left if each.startswith("request")):
            leased = self.requests[int(what.removeprefix("request"))]
            yield f"{who} picks", partial(self.pick, world, who, what, now, leased=leased)
        yield f"{who} marks the pod", lambda: self.mark(world, who)
        yield f"{who} reads the engine", lambda: self.read_engine(world, who, now)

    def meets(self, world: World, who: str, now: float) -> Iterator[Step]:
        """Yield what may happen to a replica."""
        happens: dict[str, Callable[[World], World | None]] = {
            "kill": lambda after: self.kill(after, who),
            "restart": lambda after: self.restart(after, who, now),
            "gate": lambda after: self.gate(after, who, now),
            "silence": lambda after: self.silence(after, who),
        }
        for what, happen in happens.items():
            if what in world.left:
                yield f"{what} {who}", partial(happen, self.used(world, what))

    def sees(self, world: World, who: str, peer: Peer, now: float) -> Iterator[Step]:
        """Yield what a replica may learn from the API server."""
        if peer.seen < 0:
            yield f"{who} lists the pods", lambda: self.list_pods(world, who, now)
        else:
            for seen in range(peer.seen + 1, len(world.versions)):
                yield f"{who} sees version {seen}", partial(self.see, world, who, seen, now)
        if self.lists_before_registering and peer.seen >= 0 and who not in {member for _, member, _ in world.registry}:
            yield f"{who} registers", lambda: self.registered(world, who)
        yield f"{who} starts to read the members", lambda: self.read(world, who)
        if peer.reading is not None:
            yield f"{who} has read the members", lambda: self.has_read(world, who, now)

    def hears(self, world: World, who: str, now: float) -> Iterator[Step]:
        """Yield every word of others that may reach a replica now."""
        for sender, other in world.peers:
            if sender != who:
                for number, words in enumerate(other.said):
                    yield f"{who} hears {sender}#{number}", partial(self.hear, world, who, sender, words, now)

    def used(self, world: World, what: str) -> World:
        """Return the world in which this may happen once less."""
        left = list(world.left)
        left.remove(what)
        return replace(world, left=tuple(left))

    def pick(self, world: World, who: str, what: str, now: float, *, leased: bool) -> World | None:
        after, picked = self.act(
            world, who, now, ("pick", leased), lambda r: r.acquire(Request(MODEL, leased=leased), now)
        )
        if not isinstance(picked, Pick):
            return None
        container = world.pod.incarnation
        if late := [key for key in world.promised if concerns(key, container)]:
            raise Violation(f"{who} sends a request although {late} was called over")
        flight = Flight(who, picked.attempt, container, leased)
        return replace(self.used(after, what), flights=world.flights | {flight})

    def end(self, world: World, flight: Flight, now: float) -> World:
        world = replace(world, flights=world.flights - {flight})
        if not world.peer(flight.by).alive:
            return world
        label = ("end", flight.attempt)
        how = Router.complete if flight.leased else Router.release
        return self.act(world, flight.by, now, label, lambda r: how(r, flight.attempt, Outcome.COMPLETED, now))[0]

    def delete(self, world: World) -> World:
        gone = replace(
            world.pod, version=world.pod.version + 1, deletion=Deletion(0.0, FOREVER, DrainReason.DELETE), ready=False
        )
        return replace(world, versions=(*world.versions, gone))

    def new_container(self, world: World) -> World:
        """Let SIGTERM through; what was in flight at the old container would have been a violation."""
        spec = world.pod
        new = replace(spec, version=spec.version + 1, incarnation=f"{spec.incarnation}+")
        return replace(world, versions=(*world.versions, new))

    def gate(self, world: World, who: str, now: float) -> World | None:
        """Have the gate call a replica that knows the pod as it is."""
        peer = world.peer(who)
        if peer.seen < 0 or world.versions[peer.seen].incarnation != world.pod.incarnation or world.pod.deletion:
            return None
        return self.act(world, who, now, "gate", lambda r: r.gate_calls(POD, now))[0]

    def mark(self, world: World, who: str) -> World | None:
        """Put a mark that only replicas know on the pod."""
        wanted = world.peer(who).facts.unmarked
        if wanted is None or world.pod.gate_mark == wanted:
            return None
        spec = replace(world.pod, version=world.pod.version + 1, gate_mark=wanted)
        return replace(world, versions=(*world.versions, spec))

    def see(self, world: World, who: str, seen: int, now: float) -> World:
        """Have the watch bring a newer version; those between may be left out."""
        spec = world.versions[seen]
        return self.act(world, who, now, ("see", spec), lambda r: r.apply(EndpointSeen(spec), now), seen=seen)[0]

    def read(self, world: World, who: str) -> World | None:
        peer = world.peer(who)
        members = frozenset(member for _, member, there in world.registry if there)
        left = frozenset(member for _, member, there in world.registry if not there)
        reading = (peer.facts.list[0], members, left)
        if reading == peer.reading or (reading == peer.facts.list and peer.facts.durable[0] == reading[0]):
            return None
        return world.with_peer(who, peer._replace(reading=reading))

    def has_read(self, world: World, who: str, now: float) -> World:
        reading = world.peer(who).reading
        assert reading is not None
        return self.act(world, who, now, ("read", reading), lambda r: set_members(r, reading, now), reading=None)[0]

    def hear(self, world: World, who: str, sender: str, words: Words, now: float) -> World | None:
        if {(sender, word) for _, word in words} <= world.peer(who).facts.heard:
            return None
        return self.act(world, who, now, ("hear", sender, words), lambda r: r.hear(sender, dict(words), now))[0]

    def read_engine(self, world: World, who: str, now: float) -> World | None:
        busy = any(flight.container == world.pod.incarnation for flight in world.flights)
        if busy or not world.peer(who).facts.asks:
            return None
        return self.act(world, who, now, "engine", lambda r: read_idle(r, now))[0]

    # Replicas come and go

    def kill(self, world: World, who: str) -> World:
        """Take the replica's pod away: what it proxied ends, its leases live on; it is seen to be gone."""
        registry = tuple((name, member, there and member != who) for name, member, there in world.registry)
        return replace(self.dead(world, who), registry=registry)

    def dead(self, world: World, who: str) -> World:
        flights = frozenset(flight for flight in world.flights if flight.by != who or flight.leased)
        return replace(world, flights=flights).with_peer(who, world.peer(who)._replace(alive=False, reading=None))

    def restart(self, world: World, who: str, now: float) -> World:
        """Have the replica's process die and start again in the same pod: another life under the same name."""
        name = world.peer(who).name
        return self.born(self.dead(world, who), name, now)

    def born(self, world: World, name: str, now: float) -> World:
        """Start a replica: it registers, and lists the pods in a later step."""
        who = f"{name}.{1 + sum(peer.name == name for _, peer in world.peers)}"
        router = self.make(who, now)
        router.apply(ServerSeen(server(total=FOREVER)), now)
        world = self.stored(world, who, Peer(name, b"", facts(router, now), -1, None, (), alive=True), router)
        return world if self.lists_before_registering else self.registered(world, who)

    def registered(self, world: World, who: str) -> World:
        name = world.peer(who).name
        others = tuple(entry for entry in world.registry if entry[0] != name)
        return replace(world, registry=tuple(sorted((*others, (name, who, True)))))

    def list_pods(self, world: World, who: str, now: float) -> World:
        snapshot = Snapshot((server(total=FOREVER),), (world.pod,))
        seen = len(world.versions) - 1
        return self.act(world, who, now, ("list", world.pod), lambda r: r.apply(snapshot, now), seen=seen)[0]

    def silence(self, world: World, who: str) -> World | None:
        """Take a replica that lives for dead, by a timer: what the registry must never do."""
        registry = tuple(entry for entry in world.registry if entry[1] != who)
        return replace(world, registry=registry) if self.forgets_the_silent else None


def concerns(key: str, container: str) -> bool:
    """Whether a drain for this mark promises something about requests to this container."""
    return key in ("deletion", f"gate/{container}")


def set_members(router: Router, reading: Reading, now: float) -> None:
    """Tell a router the list of members that was read."""
    answers, members, left = reading
    router.set_members(members, now, answers=answers, left=left)


def read_idle(router: Router, now: float) -> None:
    """Tell a router two idle readings of the engine."""
    for moment in (now, now + 1):
        router.engine_read(POD, idle=True, now=moment)


def facts(router: Router, now: float) -> Facts:
    """Return what the router's next steps depend on."""
    drains = router._drains
    endpoint, drain = router._registry.endpoints.get(POD), drains._drains.get(POD)
    return Facts(
        list=(drains.wanted, drains.members, router._left),
        picks=router._sequence,
        open=frozenset((each.id, each.expires_at is not None) for each in router._ledger._attempts.values()),
        endpoint=() if endpoint is None else _endpoint_facts(endpoint),
        drain=drain.mark.key if drain else None,
        over=drain is not None and drain.outcome is not None,
        durable=(drains._answered, *(sorted(drain.durable.items()) if drain else ())),
        agreed=frozenset(drain.acked_at if drain else ()),
        heard=frozenset(drain.words.items() if drain else ()),
        says=tuple(sorted(router.words(now).items())),
        unmarked=next((mark.incarnation for _, mark in router.unmarked(now)), None),
        asks=POD in router.questions(now),
    )


def _endpoint_facts(endpoint: Endpoint) -> tuple[object, ...]:
    blind = endpoint.blind_since is not None
    counts = (endpoint.in_flight, len(endpoint.unknown), endpoint.limit)
    return (endpoint.state, *counts, blind, endpoint.was_ready)


@dataclass
class Search:
    """What was explored: how many worlds and steps, and some worlds to go on from."""

    worlds: int = 0
    steps: int = 0
    samples: list[World] = field(default_factory=list)


def explore(scenario: Scenario, *, most: int = 1_000_000, sample: int = 101) -> Search:
    """Look at every world that can be reached, or at ``most``; Violation tells the story of a broken promise."""
    start = scenario.world()
    story: dict[tuple[object, ...], tuple[tuple[object, ...], str] | None] = {start.key(): None}
    pending: deque[tuple[World, int]] = deque([(start, 1)])
    search = Search()
    while pending and search.worlds < most:
        world, depth = pending.popleft()
        search.worlds += 1
        if search.worlds % sample == 1:
            search.samples.append(world)
        for name, step in scenario.steps(world, depth * STEP_SECONDS):
            search.steps += 1
            try:
                after = step()
            except Violation as broken:
                raise Violation(f"{told(story, world)} {name}: {broken}") from None
            if after is not None and (key := after.key()) not in story:
                story[key] = (world.key(), name)
                pending.append((after, depth + 1))
    return search


def told(story: dict[tuple[object, ...], tuple[tuple[object, ...], str] | None], world: World) -> str:
    """Return the steps that led to a world."""
    names: list[str] = []
    came = story[world.key()]
    while came is not None:
        names.append(came[1])
        came = story[came[0]]
    return "; ".join(reversed(names)) + ";"
