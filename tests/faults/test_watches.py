"""Watches that break, lag, lie or fall silent: what vanished meanwhile is gone from the doors soon after."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.rig import Rig

pytestmark = pytest.mark.cluster


async def test_a_rollout_through_the_proxy_without_any_fault_loses_nothing(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load() as load:
        await asyncio.sleep(1)
        await asyncio.to_thread(rig.servers.kubectl, "rollout", "restart", "deployment/alpha")
        await asyncio.to_thread(rig.servers.kubectl, "rollout", "status", "deployment/alpha", "--timeout=60s")
        await rig.settle()
    assert not load.losses, load.losses[:3]
    await rig.check(load.records.values())
    print([str(w) for w in rig.proxy.writes()])
