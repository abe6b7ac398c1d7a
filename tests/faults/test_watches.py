"""Watches that break, lag, lie or fall silent: what vanished meanwhile is gone from the doors soon after a list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from tests.cluster.load import Load
from tests.cluster.servers import Document, eventually
from tests.faults import actions
from tests.faults.calls import on
from tests.faults.proxy import Action
from tests.faults.rig import RESYNC_SECONDS, Rig

pytestmark = pytest.mark.cluster

NEXT_LIST_SECONDS = RESYNC_SECONDS + 5.0
PODS_WATCHED = on("watch", "pods")
PODS_LISTED = on("list", "pods")
BROKEN: dict[str, Action] = {
    "cut": actions.cut_after(0),
    "refused with 410": actions.refuse(410),
    "ended by an ERROR event 410": actions.error_after(0, 410),
    "ended in the middle of an event": actions.garble_after(0),
    "refused with 500": actions.refuse(500),
    "late by a minute": actions.late_events(60),
    "silent": actions.never_answer,
}


async def test_a_pod_that_vanished_while_the_watch_was_broken_is_gone_soon_after_the_next_list(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load(clients=4) as load:
        for name, action in BROKEN.items():
            with rig.proxy.failing(PODS_WATCHED, action):
                rig.proxy.cut(PODS_WATCHED)
                pod = rig.servers.pods("alpha")[0]
                await asyncio.to_thread(rig.vanish, pod)
                await rig.gone_from_the_doors(pod, seconds=NEXT_LIST_SECONDS, what=name)
            rig.proxy.cut(PODS_WATCHED)
            await rig.settle(seconds=20)
    _only_streams_are_lost(load)
    await _watched_again(rig)
    await rig.check(load.records.values())


def _only_streams_are_lost(load: Load) -> None:
    """Hold that a request of which no byte has come is sent elsewhere when its pod is gone."""
    refused = [record for record in load.losses if record.first_at is None]
    assert not refused, refused[:3]


async def _watched_again(rig: Rig) -> None:
    seen = len(rig.proxy.calls)
    rig.proxy.cut(PODS_WATCHED)

    def watched() -> bool:
        return any(PODS_WATCHED(call) and call.status == 200 for call in rig.proxy.calls[seen:])

    await asyncio.to_thread(eventually, watched, seconds=20, what="pods are watched again")


async def test_an_older_list_brings_no_pod_back_and_takes_none_away(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load(clients=4) as load:
        first = rig.servers.pods("alpha")[0]
        before = await asyncio.to_thread(rig.vanish, first)
        await rig.gone_from_the_doors(first, seconds=NEXT_LIST_SECONDS)
        await rig.settle()
        with rig.proxy.failing(PODS_LISTED, actions.older_than(before)) as fault:
            ready = rig.endpoints()
            await asyncio.to_thread(eventually, lambda: fault.hits >= 4, seconds=20, what="four older lists")
            assert rig.endpoints() == ready
            second = rig.servers.pods("alpha")[0]
            await asyncio.to_thread(rig.vanish, second)
            await rig.gone_from_the_doors(second, seconds=5, what="the watch tells it, whatever the list says")
        await rig.settle()
    _only_streams_are_lost(load)
    samples = [set(sample.states) for sample in rig.samples()]
    _never_again(samples, first)
    _never_again(samples, second)
    await rig.check(load.records.values())


def _never_again(samples: Iterable[set[str]], pod: Document) -> None:
    """Hold that a uid which has once gone from the doors does not come back."""
    here = [pod["metadata"]["uid"] in uids for uids in samples]
    since = here.index(True)
    until = here.index(False, since)
    assert not any(here[until:])


@pytest.mark.parametrize("how", ["cut in the middle", "refused with 500"])
async def test_lists_that_fail_take_no_endpoint_away(how: str, rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    action = actions.cut_in_the_middle if how == "cut in the middle" else actions.refuse(500)
    async with rig.load(clients=4) as load:
        with rig.proxy.failing(PODS_LISTED, action) as fault:
            await asyncio.to_thread(eventually, lambda: fault.hits >= 3, seconds=20, what="three failed lists")
            assert len(rig.endpoints()) == 2
    assert not load.losses, str(load.losses[:3])
    await rig.check(load.records.values())
