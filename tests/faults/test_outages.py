"""The API server is away, silent or slow while requests flow: they flow on, and the rest is made good afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.servers import eventually
from tests.faults.rig import SOAK, Rig

pytestmark = pytest.mark.cluster

AWAY_SECONDS = 60.0 if SOAK else 20.0
STILL_SECONDS = 9.0 if SOAK else 4.0
CONVERGE_SECONDS = 10.0
FORGOTTEN_SECONDS = 10.0
"""How long the operator waits for an answer on a connection that the network has forgotten."""


@pytest.fixture
def nodes(cluster: EmbeddedCluster) -> Iterator[None]:
    """Make nodes ready again: the node controller gives them up when it has not heard of them for 20 s."""
    yield
    cluster.kubelet.restart()
    cluster._wait_for_nodes()


@contextmanager
def _no_api_server(rig: Rig) -> Iterator[None]:
    process = rig.cluster.control_plane.process("kube-apiserver")
    process.kill()
    try:
        yield
    finally:
        process.start()
        eventually(
            lambda: rig.cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, what="ready again"
        )


def _refused(rig: Rig) -> AbstractContextManager[None]:
    return rig.proxy.away()


def _silent(rig: Rig) -> AbstractContextManager[None]:
    return rig.proxy.silent()


@pytest.mark.parametrize(
    ("outage", "patience"),
    [(_refused, CONVERGE_SECONDS), (_silent, FORGOTTEN_SECONDS + CONVERGE_SECONDS)],
    ids=["refused", "silent"],
)
async def test_while_the_api_server_is_away_only_streams_of_a_pod_that_dies_are_lost(
    outage: Callable[[Rig], AbstractContextManager[None]], patience: float, rig: Rig
) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=3)
    async with rig.load() as load:
        since = time.time()
        with outage(rig):
            await asyncio.sleep(3)
            dead = rig.servers.pods("alpha")[0]
            await asyncio.to_thread(rig.vanish, dead)
            await asyncio.sleep(AWAY_SECONDS - 3)
        rig.note_away(since)
        await rig.settle(seconds=patience)
    address = f"{dead['status']['podIP']}:8000"
    wrong = [record for record in load.losses if record.first_at is None or record.endpoint != address]
    assert not wrong, wrong[:3]
    await rig.check(load.records.values())


@pytest.mark.usefixtures("nodes")
async def test_a_drain_that_began_before_the_api_server_died_is_over_soon_after_it_is_back(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load() as load:
        await asyncio.sleep(0.5)
        pod = rig.servers.pods("alpha")[0]
        rig.servers.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        await rig.gone_from_the_doors(pod, seconds=2)
        since = time.time()
        with _no_api_server(rig):
            await asyncio.sleep(AWAY_SECONDS / 4)
        rig.note_away(since)
        await rig.settle(seconds=30)
    assert not load.losses, str(load.losses[:3])
    await rig.check(load.records.values())


@pytest.mark.usefixtures("nodes")
async def test_a_control_plane_that_stands_still_for_seconds_costs_no_stream(rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load() as load:
        await asyncio.to_thread(rig.roll_out, "new")
        since = time.time()
        for part in ("etcd", "kube-apiserver"):
            await asyncio.sleep(1)
            with _standing_still(rig, part):
                await asyncio.sleep(STILL_SECONDS)
        rig.note_away(since)
        await rig.rolled_out("new", seconds=45)
    assert not load.losses, str(load.losses[:3])
    await rig.check(load.records.values())


@contextmanager
def _standing_still(rig: Rig, part: str) -> Iterator[None]:
    process = rig.cluster.control_plane.process(part)
    process.pause()
    try:
        yield
    finally:
        process.resume()
