"""Ends of an installation with drains running: nothing is stuck, or one documented command frees it."""

from __future__ import annotations

import asyncio
import json

from tests.cluster.load import Load
from tests.cluster.servers import Servers, eventually
from tests.node.loads import one_stream, terminating
from tests.node.nodes import NodeCluster
from tests.node.release import Release
from tests.node.witness import OURS

FOREIGN = "example.com/keep"


async def test_a_namespace_that_is_deleted_drains_and_goes(
    node: NodeCluster, others: Servers, release: Release
) -> None:
    async with Load(release.proxy, "other", clients=0) as load:
        streams = [asyncio.create_task(load.one(80, "x")) for _ in range(4)]
        await asyncio.to_thread(eventually, lambda: len([one for one in load.running if one.received]) == 4)
        node.kubectl("delete", "namespace", others.namespace, "--wait=false")
        records = [await stream for stream in streams]
    assert [one for one in records if not one.complete] == []
    await asyncio.to_thread(eventually, lambda: not node.get("namespace", others.namespace), seconds=40)


async def test_an_uninstall_with_a_drain_running_leaves_nothing_of_ours_and_all_of_others(
    node: NodeCluster, servers: Servers, release: Release
) -> None:
    async with one_stream(servers, release.proxy) as (stream, pod):
        name = pod["metadata"]["name"]
        finalizers = {"metadata": {"finalizers": [*pod["metadata"]["finalizers"], FOREIGN]}}
        servers.kubectl("patch", "pod", name, "--type=merge", "-p", json.dumps(finalizers))
        servers.kubectl("delete", "pod", name, "--wait=false")
        await asyncio.to_thread(release.uninstall)
        assert (await stream).complete, stream.result()
    held = {one["metadata"]["name"]: one["metadata"].get("finalizers", []) for one in servers.pods()}
    assert held.pop(name) == [FOREIGN]
    assert [one for one in held.values() if OURS in one] == []
    servers.kubectl("patch", "pod", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    await asyncio.to_thread(eventually, lambda: not terminating(servers), seconds=30)
