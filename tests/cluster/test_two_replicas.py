"""Two replicas agree on drains while either is killed, paused, started anew, joins, or takes the Lease over.

They are processes of this machine and no pods, so that only they themselves, or a next life of the same name, can say
that one has ended: the rule for pods is in tests/kube/test_members.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.load import Load, Record
from tests.cluster.replica import Replica
from tests.cluster.servers import MODEL, Document, Servers, eventually
from tests.faults.direct import Direct

pytestmark = pytest.mark.cluster

DRAIN = "tailrace.dev/drain"
LEASE_SECONDS = 3
QUICK = {"lease_seconds": f"{LEASE_SECONDS}", "lease_renew_seconds": "1", "resync_seconds": "2", "status_seconds": "1"}
FIVE_SECONDS = 320
"""Tokens of a stream that takes about so long."""


class Pair:
    """Two replicas of one installation, and one model server of theirs."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.servers = Servers(cluster, namespace)
        self.both = tuple(
            Replica(cluster, [namespace], name=name, lease_name=f"two-{namespace}", shutdown_seconds="5", **QUICK)
            for name in ("replica-0", "replica-1")
        )
        routers = ",".join(each.admin.removeprefix("http://") for each in self.both)
        for each in self.both:
            each.environment["TAILRACE_GATE_ROUTERS"] = routers

    def start(self, *, pods: int = 1) -> None:
        for each in self.both:
            each.launch()
        for each in self.both:
            each.wait_ready()
        self.servers.serve("alpha", replicas=pods)
        for each in self.both:
            self.sees_ready(each, pods)

    def stop(self) -> None:
        for each in self.both:
            each.stop()

    def sees_ready(self, replica: Replica, pods: int = 1) -> None:
        def ready() -> bool:
            return len([one for one in replica.endpoints() if one["state"] == "ready"]) == pods

        eventually(ready, what=f"{replica.name} routes to {pods}")

    @property
    def leader(self) -> Replica:
        """The one that holds the Lease."""
        found: Replica = eventually(lambda: next((each for each in self.both if each.process and each.leads()), None))
        return found

    @property
    def standby(self) -> Replica:
        """The other one."""
        leader = self.leader
        return next(each for each in self.both if each is not leader)

    def pod(self) -> Document:
        """Return a pod that nobody deletes; one that was released may still be there for a moment."""
        found: Document = eventually(self._staying, what="a pod that stays")
        return found

    def _staying(self) -> Document | None:
        pods = self.servers.pods("alpha")
        return next((pod for pod in pods if "deletionTimestamp" not in pod["metadata"]), None)

    def delete(self, pod: Document) -> None:
        self.servers.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

    def holds(self, pod: Document) -> bool:
        """Whether the pod still has its finalizer."""
        found = self.servers.get("pod", pod["metadata"]["name"])
        same = found.get("metadata", {}).get("uid") == pod["metadata"]["uid"]
        return bool(same and DRAIN in found["metadata"].get("finalizers", []))

    def released(self, pod: Document, *, seconds: float) -> None:
        eventually(lambda: not self.holds(pod), seconds=seconds, what="the finalizer is gone")


@pytest.fixture
def pair(installed: Cluster, namespace: str) -> Iterator[Pair]:
    made = Pair(installed, namespace)
    try:
        yield made
    finally:
        made.stop()


async def held_while(pair: Pair, pod: Document, what: asyncio.Task[Record]) -> Record:
    """Assert that the finalizer stays until the request has ended."""
    while not what.done():
        held = await asyncio.to_thread(pair.holds, pod)
        assert held or what.done(), "released while a request was under way"
        await asyncio.sleep(0.1)
    return what.result()


@asynccontextmanager
async def streaming(replica: Replica, tokens: int = FIVE_SECONDS) -> AsyncIterator[asyncio.Task[Record]]:
    """Run one stream through the replica's proxy."""
    async with Load(replica.proxy, MODEL, clients=0) as load:
        stream = asyncio.create_task(load.one(tokens, "x"))
        await asyncio.sleep(0.5)
        assert load.running[0].first_at is not None
        yield stream
        await stream


@asynccontextmanager
async def leasing(replica: Replica, tokens: int = FIVE_SECONDS) -> AsyncIterator[tuple[asyncio.Task[Record], str]]:
    """Run one stream past the proxies, on a lease that the replica gave and nobody completes."""
    async with Direct(replica.routing, MODEL, clients=0, tokens=tokens) as direct:
        routed = await direct._route()
        assert routed is not None
        record = Record("leased", tokens, routed[0], endpoint=routed[1])

        async def read() -> Record:
            await direct._read(record)
            return record

        yield asyncio.create_task(read()), routed[2]


async def test_what_only_the_standby_knows_holds_the_finalizer_and_its_lease_is_completed_anywhere(
    pair: Pair,
) -> None:
    await asyncio.to_thread(pair.start)
    leader, standby, pod = pair.leader, pair.standby, pair.pod()
    async with streaming(standby) as stream, leasing(standby, tokens=1) as (_, attempt):
        pair.delete(pod)
        assert (await held_while(pair, pod, stream)).complete
        await asyncio.sleep(2)  # the settle time is over, the lease is not
        assert pair.holds(pod)
        assert await complete(leader, attempt) == (200, "done")
        assert await complete(leader, attempt) == (200, "already")
    await asyncio.to_thread(pair.released, pod, seconds=2)


async def complete(replica: Replica, attempt: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(f"{replica.routing}/complete/{attempt}") as answer:
        document: dict[str, Any] = await answer.json()
        return answer.status, document.get("completed", "")


async def test_a_replica_that_was_killed_is_waited_for_and_the_engine_answers_for_its_leases(pair: Pair) -> None:
    await asyncio.to_thread(pair.start)
    standby, pod = pair.standby, pair.pod()
    async with leasing(standby, tokens=2 * FIVE_SECONDS) as (stream, _):
        pair.delete(pod)
        await asyncio.sleep(0.5)
        standby.kill()
        await asyncio.sleep(3)
        assert pair.holds(pod), "nobody has said that the replica has ended"
        await asyncio.to_thread(standby.start)  # the same name: its record is taken over
        assert not stream.done(), "an invalid run"
        assert (await held_while(pair, pod, stream)).complete
    await asyncio.to_thread(pair.released, pod, seconds=8)


async def test_a_leader_paused_past_every_timer_is_waited_for_and_loses_nothing(pair: Pair) -> None:
    await asyncio.to_thread(pair.start)
    leader, standby, pod = pair.leader, pair.standby, pair.pod()
    async with streaming(leader, tokens=FIVE_SECONDS // 2) as stream:
        leader.pause()
        try:
            pair.delete(pod)
            await asyncio.to_thread(eventually, standby.leads, seconds=4 * LEASE_SECONDS)
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert await asyncio.to_thread(pair.holds, pod)
                await asyncio.sleep(0.2)
        finally:
            leader.resume()
        assert (await held_while(pair, pod, stream)).complete
    await asyncio.to_thread(pair.released, pod, seconds=5)


async def test_a_replica_that_left_in_order_is_not_waited_for_and_one_that_joins_picks_no_pod_that_drains(
    pair: Pair,
) -> None:
    await asyncio.to_thread(pair.start)
    joins, stays, pod = pair.standby, pair.leader, pair.pod()
    await asyncio.to_thread(joins.stop)
    async with streaming(stays, tokens=2 * FIVE_SECONDS) as stream:
        pair.delete(pod)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(joins.start)
        assert not stream.done(), "an invalid run"
        picks = await picked_while(joins, stream)
        assert (await stream).complete
    assert f"{pod['status']['podIP']}:8000" not in picks
    await asyncio.to_thread(pair.released, pod, seconds=5)
    again = pair.pod()
    await asyncio.to_thread(joins.stop)
    await asyncio.to_thread(pair.sees_ready, stays)
    pair.delete(again)
    await asyncio.to_thread(pair.released, again, seconds=8)  # the engine was asked: who left may have given leases


async def picked_while(replica: Replica, stream: asyncio.Task[Record]) -> set[str]:
    """Ask for routes until the stream has ended; return where they led."""
    picks = set()
    async with Direct(replica.routing, MODEL, clients=0) as direct:
        while not stream.done():
            routed = await direct._route()
            if routed is not None:
                picks.add(routed[1])
                await complete(replica, routed[2])
            await asyncio.sleep(0.05)
    return picks


async def test_the_standby_takes_over_from_a_killed_leader_and_a_rollout_loses_nothing(pair: Pair) -> None:
    await asyncio.to_thread(pair.start, pods=2)
    leader, standby = pair.leader, pair.standby
    async with Load(standby.proxy, MODEL, clients=6, tokens=(20, 80)) as load:
        await asyncio.sleep(0.5)
        leader.kill()
        old = {pod["metadata"]["uid"] for pod in pair.servers.pods("alpha")}
        pair.servers.kubectl("rollout", "restart", "deployment/alpha")
        await asyncio.to_thread(eventually, standby.leads, seconds=4 * LEASE_SECONDS)
        await asyncio.to_thread(leader.start)
        await asyncio.to_thread(eventually, lambda: not old & uids(pair), seconds=40, what="the old pods are gone")
    assert len(load.records) > load.clients
    assert not load.losses, str(load.losses[:3])


def uids(pair: Pair) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pair.servers.pods("alpha")}


def test_a_life_that_wakes_up_to_find_its_name_taken_ends(installed: Cluster, namespace: str) -> None:
    settings = QUICK | {"lease_name": f"two-{namespace}", "shutdown_seconds": "1"}
    old, new = (Replica(installed, [namespace], name="replica-0", **settings) for _ in range(2))
    with old:
        old.pause()
        try:
            new.start()
        finally:
            old.resume()
        process = old.process
        eventually(lambda: process is not None and not process.alive(), seconds=15, what="the old life has ended")
        assert "give each its own" in process.tail(60) if process else False
        assert new.get("/endpoints")["inFlight"] == 0
        new.stop()
