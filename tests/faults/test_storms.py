"""Writes that are refused, fail, or succeed in silence: they are repeated without harm."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.cluster.servers import Document
from tests.faults import actions
from tests.faults.calls import Call, Match, on, writes
from tests.faults.proxy import Action
from tests.faults.rig import SOAK, Rig

pytestmark = pytest.mark.cluster

STORM = 12
"""How many writes in a row fail; enough for each of the few that a rollout needs to be among them."""

REFUSALS: dict[str, Action] = {
    "conflict": actions.refuse(409),
    "invalid": actions.refuse(422),
    "server error": actions.refuse(500),
    "too many requests": actions.refuse(429, retry_after=1),
}
LOSSES: dict[str, Action] = {
    "no answer": actions.lose_answer,
    "500 after the commit": actions.spoil_answer(500),
    "504 after the commit": actions.spoil_answer(504),
}


def finalizers_and_workloads(call: Call) -> bool:
    """Match the writes that a rollout cannot do without."""
    return writes(call) and call.resource in ("pods", "deployments")


def _storms(kinds: dict[str, Action]) -> dict[str, Action]:
    """All kinds in turn within one storm; in a soak each kind in a storm of its own besides."""
    return {"all": actions.in_turn(*kinds.values())} | (kinds if SOAK else {})


@pytest.mark.parametrize("kind", _storms(REFUSALS))
async def test_writes_that_are_refused_in_a_storm_are_made_when_it_is_over(kind: str, rig: Rig) -> None:
    await _roll_out_in(rig, writes, _storms(REFUSALS)[kind], STORM)


@pytest.mark.parametrize("kind", _storms(LOSSES))
async def test_writes_whose_answer_is_lost_are_not_made_twice(kind: str, rig: Rig) -> None:
    await _roll_out_in(rig, finalizers_and_workloads, _storms(LOSSES)[kind], len(LOSSES))


async def _roll_out_in(rig: Rig, match: Match, action: Action, times: int) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load(clients=4) as load:
        with rig.proxy.failing(match, action, times) as storm:
            await asyncio.to_thread(rig.roll_out, "new")
            await rig.rolled_out("new")
    assert storm.left == 0, f"only {storm.hits} writes have met the storm"
    assert not load.losses, str(load.losses[:3])
    await rig.check(load.records.values())
    _nothing_twice(rig)


async def test_a_deployment_whose_creation_is_not_answered_is_created_once(rig: Rig) -> None:
    created = on("create", "deployments", dry_run=False)
    with rig.proxy.failing(created, actions.lose_answer, 1) as fault:
        await asyncio.to_thread(rig.servers.serve, "alpha", replicas=1)
    assert fault.hits == 1
    assert len([call for call in rig.proxy.writes() if created(call)]) == 1
    await rig.check()


def _nothing_twice(rig: Rig) -> None:
    """Hold that each finalizer was taken off once, each drain told once about its pod, and one template written."""
    patched = Counter(call.name for call in rig.proxy.writes() if call.resource == "pods")
    assert set(patched.values()) == {1}, patched
    told = Counter(event["involvedObject"]["uid"] for event in rig.servers.events("Drained") if _about_a_pod(event))
    assert set(told.values()) <= {1}, told
    templates = [call for call in rig.proxy.writes() if call.verb == "patch" and "/spec/template" in str(call.body)]
    assert len(templates) == 1, templates


def _about_a_pod(event: Document) -> bool:
    return bool(event["involvedObject"]["kind"] == "Pod")
