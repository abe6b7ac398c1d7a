"""The operator, or its child, dies or hangs between any two of its writes: everything converges all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

import pytest
from tests.cluster.servers import eventually
from tests.faults.rig import LEASE_SECONDS, SOAK, Rig

pytestmark = pytest.mark.cluster

CRASHES: tuple[tuple[int, ...], ...] = ((1, 2), (3, 5), (8,))
if SOAK:
    CRASHES += (*((number,) for number in range(1, 16)), (1, 1, 1, 1), (2, 3, 4))


@pytest.mark.parametrize("numbers", CRASHES, ids=str)
async def test_an_operator_killed_after_its_writes_of_these_numbers_finishes_the_rollout_when_it_is_back(
    numbers: tuple[int, ...], rig: Rig
) -> None:
    """Each number counts anew from the restart before, and each round is a rollout of its own, with writes enough."""
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.direct() as direct:
        await asyncio.sleep(0.5)
        for turn, number in enumerate(numbers):
            met = rig.after_write(number, rig.kill)
            await asyncio.to_thread(rig.roll_out, f"new-{turn}")
            await asyncio.to_thread(eventually, partial(bool, met), seconds=20, what=f"write {number}")
            await asyncio.sleep(1)
            await rig.restart()
        await rig.rolled_out(f"new-{len(numbers) - 1}")
    assert len(direct.records) > direct.clients
    assert not direct.losses, str(direct.losses[:3])
    await rig.check(direct.records.values())


async def test_a_child_killed_again_and_again_during_a_rollout_costs_no_proxied_stream(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load() as load:
        for number in (1, 1, 2):
            met = rig.after_write(number, rig.kill_child)
            await asyncio.to_thread(rig.roll_out, "new")
            await asyncio.to_thread(eventually, partial(bool, met), seconds=20, what=f"write {number}")
        await rig.rolled_out("new")
    assert not load.losses, str(load.losses[:3])
    await rig.check(load.records.values())


async def test_a_child_stopped_past_its_lease_goes_on_where_it_was(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    child = rig.child()
    assert child is not None
    async with rig.load() as load:
        since = time.time()
        os.kill(child, signal.SIGSTOP)
        await asyncio.to_thread(rig.roll_out, "new")
        pods = rig.servers.pods("alpha")
        rig.servers.kubectl("delete", "pod", pods[0]["metadata"]["name"], "--wait=false")
        await asyncio.sleep(2 * LEASE_SECONDS)
        os.kill(child, signal.SIGCONT)
        rig.note_away(since)
        await rig.rolled_out("new")
    assert rig.child() == child
    assert not load.losses, str(load.losses[:3])
    await rig.check(load.records.values())
