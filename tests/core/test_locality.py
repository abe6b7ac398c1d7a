"""Locality: the nearest endpoint with room, then the next nearest, then whoever has the least."""

from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.play import SHAPES, STEPS, Play
from tests.core.world import BOOT, endpoint, pick, pod, pool, router, see, server

from tailrace.core.endpoint import ELSEWHERE, SAME_NODE, SAME_ZONE, Event
from tailrace.core.model import EndpointSpec, Place, PoolSettings, Request
from tailrace.core.pool import Pool
from tailrace.core.router import Router


@given(SHAPES, STEPS, st.randoms(use_true_random=False), st.sampled_from([0, 50, 80, 100]))
def test_the_nearest_with_room_is_picked_and_else_the_least_loaded(
    shapes: list[tuple[int, int]], steps: list[tuple[str, int]], rng: Random, percent: int
) -> None:
    play = Play(shapes, "Locality")
    play.pool = Pool(PoolSettings("Locality", spill_percent=percent), rng)
    for each in play.all:
        each.distance = rng.choice([SAME_NODE, SAME_ZONE, ELSEWHERE])
        each.pools, each.sources = [], ()
        play.pool.add(each)
    for step in steps:
        if (picked := play.step(*step)) is None:
            continue
        able, chosen = picked
        if chosen is not None:
            roomy = [each for each in able if each.in_flight < percent / 100 * each.capacity]
            if roomy:
                nearest = min(each.distance for each in roomy)
                able = [each for each in roomy if each.distance == nearest]
            assert chosen in able
            assert chosen.in_flight / chosen.capacity == min(each.in_flight / each.capacity for each in able)
        play.take(chosen)


def test_a_near_endpoint_is_passed_over_while_it_is_full_unready_or_draining() -> None:
    full, unready, draining = endpoint("full", 1), endpoint("unready", added=1), endpoint("draining", added=2)
    far = endpoint("far", added=3)
    for near in (full, unready, draining):
        near.distance = SAME_NODE
    made = pool(full, unready, draining, far, strategy="Locality")
    full.take()
    unready.on(Event.SEEN_UNREADY)
    draining.on(Event.DRAIN)
    assert made.pick(1) is far
    full.free()
    assert made.pick(1) is full


def at(uid: str, node: str, zone: str) -> EndpointSpec:
    return replace(pod(uid), node=node, zone=zone)


def world(place: Place) -> Router:
    spec = server(strategy="Locality")
    pods = (at("far", "n9", "z9"), at("zone", "n2", "z1"), at("node", "n1", "z1"), at("nowhere", "", ""))
    made = router(*pods, servers=(spec,))
    made.set_place(place)
    return made


@pytest.mark.parametrize(
    ("place", "picked"),
    [
        (Place("n1", "z1"), ["node", "node", "node", "node", "zone"]),
        (Place("n8", "z1"), ["zone", "node", "zone", "node"]),
        (Place("", "z9"), ["far", "far", "far", "far", "zone"]),
        (Place("", ""), ["far", "zone", "node", "nowhere"]),
    ],
)
def test_near_is_the_replica_s_node_and_then_its_zone(place: Place, picked: list[str]) -> None:
    made = world(place)
    assert [pick(made).uid for _ in picked] == picked


def test_a_replica_that_learns_where_it_is_prefers_what_is_near_from_then_on() -> None:
    made = world(Place())
    assert pick(made).uid == "far"
    made.set_place(Place("n1", "z1"))
    assert pick(made).uid == "node"


def test_an_endpoint_whose_zone_becomes_known_is_near_from_then_on() -> None:
    made = world(Place("", "z1"))
    see(made, BOOT, replace(at("zone", "n2", "z9"), version=2), replace(at("node", "n1", "z9"), version=2))
    assert pick(made).uid == "far"
    see(made, BOOT, replace(at("node", "n1", "z1"), version=3))
    assert [pick(made).uid for _ in range(2)] == ["node", "node"]


def test_no_room_is_asked_for_where_nothing_may_spill() -> None:
    near, far = endpoint("near", 2), endpoint("far", 100, added=1)
    near.distance = SAME_NODE
    made = Pool(PoolSettings("Locality", spill_percent=100), Random(0))
    made.add(near)
    made.add(far)
    for _ in range(2):
        chosen = made.pick(1, request=Request("llama"))
        assert chosen is near
        chosen.take()
    assert made.pick(1) is far
