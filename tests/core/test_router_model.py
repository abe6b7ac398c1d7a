"""The router under any order of news, requests, drains and clock steps: what must hold whatever happens.

The model knows what a test can know: which attempts it holds, what it told the router, and when. Each rule below says
one thing; the invariants are the promise.
"""

from dataclasses import dataclass, field
from random import Random

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.core.world import BOOT, ME, OTHER, SETTLE, THIRD, pod, server

from tailrace.core.drain import CUT_SECONDS
from tailrace.core.model import (
    DrainOutcome,
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    ModelSpec,
    Outcome,
    Pick,
    Refusal,
    Request,
    ServerGone,
    ServerSeen,
    Snapshot,
    Traits,
)
from tailrace.core.router import Completion, Router

UIDS = [f"p{number}" for number in range(5)]
SERVERS = {
    "ns/s": server(
        "s", ModelSpec("one"), ModelSpec("two", adapters=("lora",)), total=40.0, strategy="LeastEstimatedTTFT"
    ),
    "ns/t": server("t", ModelSpec("one"), total=40.0, created_at=0.5, strategy="RoundRobin"),
}
uids = st.sampled_from(UIDS)
numbers = st.integers(0, 10**6)


@dataclass
class Held:
    """An attempt as its door knows it."""

    uid: str
    expires_at: float | None


@dataclass
class Told:
    """What the test has told of a pod."""

    version: int = 0
    server: str = "ns/s"
    ready: bool = False
    incarnation: int = 1
    cordon: int | None = None
    deleted_at: float | None = None
    deadline: float | None = None
    deletion_seen_at: float | None = None
    ended: bool = False
    gone: bool = False
    was_ready: bool = False
    manual: int = 0
    silent: set[str] = field(default_factory=set)
    elsewhere: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


class RouterMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.router = Router(ME, booted_at=BOOT, rng=Random(1))
        self.now = BOOT + 100
        self.held: dict[str, Held] = {}
        self.over: dict[str, Outcome | None] = {}
        self.told: dict[str, Told] = {}
        self.servers: set[str] = set()
        self.members: set[str] = {ME}
        self.generation = 0
        self.released: set[str] = set()
        self.shrunk: set[str] = set()

    @initialize()
    def begin(self) -> None:
        for key in SERVERS:
            self.see_server(key)
        for uid in UIDS[:3]:
            self.see(uid, ready=True, of="ns/s", capacity=2)

    # News

    @rule(key=st.sampled_from(sorted(SERVERS)))
    def see_server(self, key: str) -> None:
        self.router.apply(ServerSeen(SERVERS[key]), self.now)
        self.servers.add(key)

    @rule(key=st.sampled_from(sorted(SERVERS)))
    def lose_server(self, key: str) -> None:
        self.router.apply(ServerGone(key), self.now)
        self.servers.discard(key)

    @rule(uid=uids, ready=st.booleans(), of=st.sampled_from(sorted(SERVERS)), capacity=st.integers(1, 3))
    def see(self, uid: str, *, ready: bool, of: str, capacity: int) -> None:
        told = self.told.setdefault(uid, Told())
        if told.gone and told.deletion_seen_at is None and not told.ended:
            told.gone, told.manual, told.silent, told.elsewhere = False, 0, set(), {}
        told.version += 1
        told.ready, told.server = ready, of
        self._apply(uid, capacity)

    @rule(uid=uids, version=st.integers(0, 3), ready=st.booleans())
    def see_old_news(self, uid: str, version: int, *, ready: bool) -> None:
        told = self.told.get(uid)
        if told is not None and version < told.version:
            self.router.apply(EndpointSeen(pod(uid, of="ns/s", version=version, ready=ready)), self.now)

    @rule(uid=uids)
    def restart_container(self, uid: str) -> None:
        self._change(uid, lambda told: setattr(told, "incarnation", told.incarnation + 1))

    @rule(uid=uids, cordon=st.sampled_from([None, 1, 2]))
    def mark(self, uid: str, cordon: int | None) -> None:
        self._change(uid, lambda told: setattr(told, "cordon", cordon))

    @rule(uid=uids, timeout=st.sampled_from([0.0, 5.0, 30.0]), ended=st.booleans())
    def delete(self, uid: str, timeout: float, *, ended: bool) -> None:
        def change(told: Told) -> None:
            if told.deleted_at is None:
                told.deleted_at, told.deadline = self.now, self.now + timeout
            told.ended = told.ended or ended

        self._change(uid, change)

    @rule(uid=uids)
    def vanish(self, uid: str) -> None:
        self.router.apply(EndpointGone(uid), self.now)
        self._lose(uid)

    @rule(keep=st.sets(uids))
    def list_everything(self, keep: set[str]) -> None:
        kept = [uid for uid, told in self.told.items() if uid in keep and not told.gone]
        servers = tuple(SERVERS[key] for key in sorted(self.servers))
        self.router.apply(Snapshot(servers, tuple(self._spec(uid) for uid in kept)), self.now)
        for uid in list(self.told):
            if uid not in kept:
                self._lose(uid)
        for uid in kept:
            self._followed(uid)

    def _change(self, uid: str, change: object) -> None:
        told = self.told.get(uid)
        if told is not None and not told.gone:
            assert callable(change)
            change(told)
            told.version += 1
            self._apply(uid, 2)

    def _spec(self, uid: str, capacity: int = 2) -> EndpointSpec:
        told = self.told[uid]
        timeout = 0.0 if told.deleted_at is None or told.deadline is None else told.deadline - told.deleted_at
        return pod(
            uid,
            of=told.server,
            capacity=capacity,
            version=told.version,
            ready=told.ready,
            incarnation=f"c{told.incarnation}",
            cordon=told.cordon,
            deleted_at=told.deleted_at,
            timeout=timeout,
            ended=told.ended,
        )

    def _apply(self, uid: str, capacity: int) -> None:
        self.router.apply(EndpointSeen(self._spec(uid, capacity)), self.now)
        self._followed(uid)

    def _followed(self, uid: str) -> None:
        told = self.told[uid]
        if told.gone:
            return
        if told.deleted_at is None:
            told.was_ready = told.was_ready or (told.ready and not told.ended)
        elif told.deletion_seen_at is None:
            told.deletion_seen_at = self.now
            told.silent = self.members - {ME}
        if self._status(uid).in_flight > self._status(uid).capacity:
            self.shrunk.add(uid)

    def _lose(self, uid: str) -> None:
        if uid not in self.told:
            return
        told = self.told[uid]
        told.gone = True
        if told.deletion_seen_at is None and not told.ended:
            return  # only taken out: what is in flight there goes on
        for attempt, held in list(self.held.items()):
            if held.uid == uid and held.expires_at is not None:
                self._end(attempt, None)

    # Requests

    @rule(
        model=st.sampled_from(["one", "two", "lora"]),
        leased=st.booleans(),
        avoid=st.frozensets(uids, max_size=2),
        count=st.integers(1, 4),
        traits=st.sampled_from([None, Traits(512, chain=(1, 2, 3), streams=True), Traits(300, chain=(1,))]),
    )
    def acquire(self, model: str, leased: bool, avoid: frozenset[str], count: int, traits: Traits | None) -> None:
        for _ in range(count):
            self._expire()
            before = {each.uid: each for each in self.router.status().endpoints}
            answer = self.router.acquire(Request(model, avoid=avoid, leased=leased, traits=traits), self.now)
            if isinstance(answer, Refusal):
                assert answer.message
                return
            self._check_pick(answer, before[answer.uid].state, model)
            assert answer.uid not in avoid
            self.held[answer.attempt] = Held(answer.uid, answer.expires_at)

    def _check_pick(self, answer: Pick, state: EndpointState, model: str) -> None:
        told = self.told[answer.uid]
        assert state is EndpointState.READY
        assert told.ready
        assert not told.ended
        assert not told.gone
        assert told.deletion_seen_at is None, "a pick of an endpoint whose deletion was seen"
        assert told.server in self.servers, "a pick for a server that is gone"
        assert model == "one" or told.server == "ns/s"
        assert answer.attempt not in self.held
        assert answer.attempt not in self.over
        endpoint = self.router._registry.endpoints[answer.uid]
        assert endpoint.in_flight <= endpoint.limit, "a pick of a full endpoint"

    @rule(number=numbers, outcome=st.sampled_from([Outcome.COMPLETED, Outcome.LOST, Outcome.REROUTED, Outcome.CUT]))
    def release(self, number: int, outcome: Outcome) -> None:
        self._expire()
        if self.held:
            attempt = sorted(self.held)[number % len(self.held)]
            assert self.router.release(attempt, outcome, self.now)
            self._end(attempt, outcome)

    @rule(number=numbers, ok=st.booleans())
    def first_byte(self, number: int, *, ok: bool) -> None:
        if self.held:
            self.router.first_byte(sorted(self.held)[number % len(self.held)], self.now, ok=ok)

    @rule(number=numbers)
    def release_again(self, number: int) -> None:
        if self.over:
            attempt = sorted(self.over)[number % len(self.over)]
            assert not self.router.release(attempt, Outcome.COMPLETED, self.now)

    @rule(number=numbers)
    def complete_late(self, number: int) -> None:
        if self.over:
            attempt = sorted(self.over)[number % len(self.over)]
            assert self.router.complete(attempt, Outcome.COMPLETED, self.now) is not Completion.DONE
            for told in self.told.values():
                told.unknown.discard(attempt)

    @rule(number=numbers)
    def renew(self, number: int) -> None:
        self._expire()
        if self.held:
            attempt = sorted(self.held)[number % len(self.held)]
            held = self.held[attempt]
            end = self.router.renew(attempt, self.now)
            assert end == (None if held.expires_at is None else self.now + 40.0)
            held.expires_at = end

    def _end(self, attempt: str, outcome: Outcome | None) -> None:
        del self.held[attempt]
        self.over[attempt] = outcome

    def _expire(self) -> None:
        """Do in the model what the router does at its next look at the clock."""
        self.router.words(self.now)
        for attempt, held in list(self.held.items()):
            if held.expires_at is not None and held.expires_at <= self.now:
                self.told[held.uid].unknown.add(attempt)
                self._end(attempt, Outcome.EXPIRED)

    # Drains

    @rule(uid=uids)
    def gate_calls(self, uid: str) -> None:
        self.router.gate_calls(uid, self.now)

    @rule(uid=uids, back=st.integers(0, 2))
    def drain(self, uid: str, back: int) -> None:
        self.generation += 1
        self.router.drain(uid, max(0, self.generation - back), self.now)

    @rule(uid=uids, back=st.integers(0, 2))
    def resume(self, uid: str, back: int) -> None:
        self.generation += 1
        self.router.resume(uid, max(0, self.generation - back))

    @rule(members=st.sets(st.sampled_from([OTHER, THIRD])))
    def change_members(self, members: set[str]) -> None:
        now = members | {ME}
        left = self.members - now
        for told in self.told.values():
            told.silent = (told.silent - left) | (now - self.members)
            for member in left:
                told.elsewhere.pop(member, None)
        self.router.set_members(frozenset(members), self.now)
        self.members = now

    @rule(uid=uids, member=st.sampled_from([OTHER, THIRD]), count=st.integers(0, 2))
    def ack(self, uid: str, member: str, count: int) -> None:
        self.router.ack(member, uid, count, self.now)
        told = self.told.get(uid)
        if told is not None and not told.gone and self._drains(uid):
            if told.deletion_seen_at is not None:
                told.silent.discard(member)
            told.elsewhere[member] = count

    def _drains(self, uid: str) -> bool:
        drain = self.router.drain_status(uid)
        return drain is not None and drain.reason is not None

    @rule(uid=uids, idle=st.booleans())
    def read_engine(self, uid: str, *, idle: bool) -> None:
        self._expire()
        self.router.engine_read(uid, idle=idle, now=self.now)
        if uid in self.told and not self.told[uid].gone and not self._unknown(uid):
            self.told[uid].unknown.clear()

    def _unknown(self, uid: str) -> int:
        return self._status(uid).unknown

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, SETTLE, 5.0, 40.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_for_the_next_deadline(self) -> None:
        self.look()
        moment = self.router.next_deadline(self.now)
        if moment is not None:
            assert moment > self.now
            self.now = moment

    @rule()
    def look(self) -> None:
        self._expire()
        in_flight = {each.uid: each.in_flight for each in self.router.status().endpoints}
        for release in self.router.releasable(self.now):
            told = self.told[release.uid]
            assert told.deletion_seen_at is not None, "a release without a deletion"
            assert not told.gone
            if release.uid not in self.released:
                self._check_release(release.uid, release.outcome, in_flight[release.uid])
        self._forget_cut()
        self.released = {release.uid for release in self.router.releasable(self.now)}

    def _check_release(self, uid: str, outcome: DrainOutcome, in_flight: int) -> None:
        told = self.told[uid]
        assert told.deadline is not None
        late = self.now >= told.deadline
        if outcome is DrainOutcome.DEADLINE:
            assert late
            elsewhere = sum(told.elsewhere.get(member, 0) for member in self.members)
            leases = sum(held.uid == uid and held.expires_at is not None for held in self.held.values())
            cut = self.now >= told.deadline + CUT_SECONDS or told.ended  # nothing runs where a pod has ended
            assert in_flight - leases + elsewhere == 0 or cut
        elif outcome is DrainOutcome.ENDED and told.ended:
            pass
        else:
            leases = sum(held.uid == uid and held.expires_at is not None for held in self.held.values())
            assert in_flight == 0 or (late and in_flight == leases)
            assert not told.unknown, "released although something is unknown"
            assert not told.silent & self.members, "released although a member was silent"
            assert not any(told.elsewhere.get(member, 0) for member in self.members)
            assert outcome is DrainOutcome.DRAINED or not told.was_ready

    def _forget_cut(self) -> None:
        """Leases at a pod past its deadline are ended by the router itself."""
        for attempt, held in list(self.held.items()):
            deadline = self.told[held.uid].deadline
            seen = self.told[held.uid].deletion_seen_at is not None and not self.told[held.uid].gone
            if held.expires_at is not None and seen and deadline is not None and deadline <= self.now:
                self._end(attempt, Outcome.CUT)

    @rule()
    def cut_what_is_overdue(self) -> None:
        for attempt in self.router.overdue(self.now):
            deadline = self.told[self.held[attempt].uid].deadline
            assert deadline is not None
            assert self.now >= deadline
            assert self.router.release(attempt, Outcome.CUT, self.now)
            self._end(attempt, Outcome.CUT)

    # What must hold

    def _status(self, uid: str) -> EndpointStatus:
        return next(each for each in self.router.status().endpoints if each.uid == uid)

    @invariant()
    def counts_are_the_attempts_in_flight(self) -> None:
        told = self.router.status()
        assert told.in_flight == len(self.held)
        for each in told.endpoints:
            assert each.in_flight == sum(held.uid == each.uid for held in self.held.values())
            assert each.in_flight <= 3
        standings = [(each.uid, each.server, each.state, each.in_flight) for each in told.endpoints]
        assert list(self.router.standings()) == standings

    @invariant()
    def nothing_is_pending_where_nothing_is_in_flight(self) -> None:
        for each in self.router._registry.endpoints.values():
            assert each.meter.pending >= 0
            assert each.in_flight or (each.meter.pending, each.meter.tokens) == (0, 0)

    @invariant()
    def every_attempt_ends_once(self) -> None:
        assert sum(self.router.status().outcomes.values()) == len(self.over)

    @invariant()
    def exactly_what_was_seen_and_is_not_gone_exists(self) -> None:
        here = {each.uid for each in self.router.status().endpoints}
        assert here == {uid for uid, told in self.told.items() if not told.gone}

    @invariant()
    def a_deletion_is_absorbing(self) -> None:
        for uid, told in self.told.items():
            if told.deletion_seen_at is not None and not told.gone:
                assert self._status(uid).state in (EndpointState.DRAINING, EndpointState.DRAINED)

    @invariant()
    def an_endpoint_that_nobody_drains_is_as_ready_as_it_was_seen(self) -> None:
        for each in self.router.status().endpoints:
            drain = self.router.drain_status(each.uid)
            if drain is None or drain.reason is None:
                told = self.told[each.uid]
                fit = told.ready and not told.ended
                assert each.state is (EndpointState.READY if fit else EndpointState.STARTING)
            else:
                assert each.state in (EndpointState.DRAINING, EndpointState.DRAINED)

    @invariant()
    def what_is_unknown_is_what_ran_out(self) -> None:
        for each in self.router.status().endpoints:
            assert each.unknown == len(self.told[each.uid].unknown)

    @invariant()
    def a_ready_endpoint_of_a_known_server_is_in_its_pools(self) -> None:
        for uid, endpoint in self.router._registry.endpoints.items():
            server_of = SERVERS[self.told[uid].server]
            assert len(endpoint.pools) == (len(server_of.models) if server_of.key in self.servers else 0)
            for pool in endpoint.pools:
                assert (uid in {each.uid for each in pool.qualified(1)}) is (endpoint.state is EndpointState.READY)


TestRouter = RouterMachine.TestCase
TestRouter.settings = settings(max_examples=80, stateful_step_count=50)
