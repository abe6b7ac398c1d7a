"""The barrier under every order of events, for a few replicas and one pod; and what each of its rules is there for."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable

import pytest
from tests.core.exploration import POD, STEP_SECONDS, Scenario, Violation, World, explore

from tailrace.core.drain import Drain, Drains
from tailrace.core.endpoint import TRANSITIONS, Endpoint, Event
from tailrace.core.model import EndpointState
from tailrace.core.router import Router

PROXIED, LEASED = False, True

SCENARIOS = {
    each.name: each
    for each in (
        Scenario("delete", happen=("delete",), requests=(PROXIED, LEASED)),
        Scenario("kill", happen=("delete", "kill"), requests=(LEASED,)),
        Scenario("join", start=("r0",), happen=("delete", "join"), requests=(PROXIED,)),
        Scenario("restart", start=("r0",), happen=("delete", "restart"), requests=(LEASED,)),
        Scenario("join and die", start=("r0",), happen=("delete", "join", "kill"), requests=(LEASED,)),
        Scenario("join and restart", start=("r0",), happen=("delete", "join", "restart"), requests=(LEASED,)),
        Scenario("gate", happen=("gate", "gate"), requests=(PROXIED, LEASED)),
        Scenario("gate and join", start=("r0",), happen=("gate", "join"), requests=(PROXIED,)),
        Scenario("gate, then delete", happen=("gate", "containers", "delete"), requests=(PROXIED,)),
        Scenario("three", start=("r0", "r1", "r2"), happen=("delete",), requests=(PROXIED,)),
    )
}
MOST = int(os.environ.get("WORLDS", "12000"))
"""Worlds looked at in each scenario: the nearest ones of those with more. WORLDS=1000000 looks at all of them."""


def run(name: str, most: int = MOST, **changes: object) -> list[World]:
    known = SCENARIOS[name]
    fresh = Scenario(name, known.start, known.happen, known.requests, **changes)  # type: ignore[arg-type]
    return explore(fresh, most=most).samples


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_no_order_of_events_ends_a_drain_early_and_every_drain_ends(name: str) -> None:
    scenario = SCENARIOS[name]
    search = explore(scenario, most=MOST)
    assert search.worlds > 300
    for world in search.samples:
        assert_drains_end(scenario, world)


def assert_drains_end(scenario: Scenario, world: World) -> None:
    """Let everything come to its end: requests, watches, words, lists. Then nothing may hold a drain up."""
    now = 1000 * STEP_SECONDS
    for flight in world.flights:
        world = scenario.end(world, flight, now)
    for _ in range(8):
        for who, peer in world.peers:
            if peer.alive:
                now += STEP_SECONDS
                world = settled(scenario, world, who, now)
    for who, peer in world.peers:
        if peer.alive and (world.pod.deletion or peer.facts.drain == f"gate/{world.pod.incarnation}"):
            router: Router = pickle.loads(peer.router)
            assert peer.facts.over, (who, router.drain_status(POD), peer.facts)


def settled(scenario: Scenario, world: World, who: str, now: float) -> World:
    """Let a replica do everything that it would do by itself before long."""
    peer = world.peer(who)
    if peer.seen < 0:
        world = scenario.list_pods(world, who, now)
    elif peer.seen < len(world.versions) - 1:
        world = scenario.see(world, who, len(world.versions) - 1, now)
    if world.peer(who).reading is None:
        world = scenario.read(world, who) or world
    if world.peer(who).reading is not None:
        world = scenario.has_read(world, who, now)
    for sender, other in world.peers:
        if sender != who and other.alive and other.facts.says:
            world = scenario.hear(world, who, sender, other.facts.says, now) or world
    world = scenario.mark(world, who) or world
    return scenario.read_engine(world, who, now) or world


# Each rule, taken away


def _drains(name: str, instead: Callable[..., object]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(Drains, name, instead)


def _nobody_is_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Drains, "_all_know", lambda *_: True)
    patch.setattr(Drains, "_settled_at", lambda *_: 0.0)


def _nothing_is_unknown(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Endpoint, "unseen", lambda *_: 0)
    patch.setattr(Endpoint, "blind", lambda *_: False)


def _an_acknowledgement_stops_no_pick(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(TRANSITIONS, EndpointState.READY, {Event.SEEN_UNREADY: EndpointState.READY})


def _a_mark_counts_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    begin = Drains.begin

    def begin_and_believe(self: Drains, endpoint: Endpoint, mark: object, *rest: object) -> bool:
        changed = begin(self, endpoint, mark, *rest)  # type: ignore[arg-type]
        self.saw_mark(endpoint.uid, mark)  # type: ignore[arg-type]
        return changed

    patch.setattr(Drains, "begin", begin_and_believe)


def _who_left_unmet_is_not_thought_of(patch: pytest.MonkeyPatch) -> None:
    known = Router.set_members

    def forgetful(self: Router, members: frozenset[str], now: float, *, answers: int, left: object = None) -> None:
        known(self, members, now, answers=answers)

    patch.setattr(Router, "set_members", forgetful)


def _a_new_life_knows_of_no_other(patch: pytest.MonkeyPatch) -> None:
    make = Scenario.make
    patch.setattr(Scenario, "make", lambda self, member, now: make(self, member, 0.0 * now))


RULES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "every member acknowledges": (_nobody_is_asked, "delete"),
    "a member that acknowledged picks no more": (_an_acknowledgement_stops_no_pick, "delete"),
    "other members have nothing in flight": (
        _drains("_in_flight", lambda _, drain: drain.endpoint.in_flight),
        "delete",
    ),
    "this member has nothing in flight": (
        _drains("_in_flight", lambda self, drain: sum(map(drain.elsewhere, self.members))),
        "delete",
    ),
    "nothing is unknown": (_nothing_is_unknown, "kill"),
    "leases of a member that left are unknown": (lambda patch: patch.setattr(Router, "_go_blind", _nothing), "kill"),
    "unless it said that it had none": (_drains("knows_idle", lambda *_: True), "kill"),
    "a new life does not know what the last one did": (_a_new_life_knows_of_no_other, "join and restart"),
    "a member that came and left unmet is thought of": (_who_left_unmet_is_not_thought_of, "join and die"),
    "members are read after the mark": (_drains("_members_known", lambda *_: True), "join"),
    "the mark is durable first": (_a_mark_counts_before_it_is_durable, "gate and join"),
    "a word holds for its own mark only": (
        lambda patch: patch.setattr(Drain, "agrees", lambda drain, member: member in drain.words),
        "gate, then delete",
    ),
}


def _nothing(*_: object) -> None:
    """Do nothing in place of a rule."""


@pytest.mark.parametrize("rule", list(RULES))
def test_without_this_rule_some_order_of_events_cuts_a_request(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away, scenario = RULES[rule]
    take_away(monkeypatch)
    with pytest.raises(Violation):
        run(scenario, most=50_000)


def test_a_replica_that_lists_pods_before_it_registers_cuts_a_request() -> None:
    with pytest.raises(Violation):
        run("join", lists_before_registering=True)


def test_a_registry_that_takes_the_silent_for_dead_cuts_a_request() -> None:
    scenario = Scenario("silence", happen=("delete", "silence"), requests=(PROXIED,), forgets_the_silent=True)
    with pytest.raises(Violation):
        explore(scenario)
