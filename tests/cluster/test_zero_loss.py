"""No request is lost when a pod goes away: official client, no retries, numbered tokens, engines that abort."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.load import Load
from tests.cluster.replica import Replica
from tests.cluster.servers import MODEL, Document, Servers, eventually

pytestmark = pytest.mark.cluster

CLIENTS = 32
WARM_UP_SECONDS = 2.0
SERVERS_ARGS = ("--max-num-seqs", "64")


@pytest.fixture
def replica(installed: Cluster, namespace: str) -> Iterator[Replica]:
    with Replica(installed, [namespace]) as running:
        yield running


class Deletions:
    """What was in flight at each pod at the moment it was first seen deleting, or gone: a proof needs a stream."""

    def __init__(self, servers: Servers, load: Load) -> None:
        self._servers = servers
        self._load = load
        self._before: dict[str, int] = {}
        self.at_deletion: dict[str, int] = {}

    async def watch(self) -> None:
        """Follow the pods until cancelled. The count is taken from the poll before, when the pod still was whole."""
        while True:
            pods = await asyncio.to_thread(self._servers.pods)
            for pod in pods:
                self._note(pod)
            for uid in self._before.keys() - {pod["metadata"]["uid"] for pod in pods}:
                self.at_deletion.setdefault(uid, self._before[uid])
            await asyncio.sleep(0.1)

    async def every_pod_streams(self) -> None:
        """Wait until every pod was seen with a stream."""
        await asyncio.to_thread(
            eventually, lambda: self._before and all(self._before.values()), what="every pod streams"
        )

    async def seen(self, number: int) -> None:
        """Wait until so many pods were seen deleting; a command that asks for it may be done before."""
        await asyncio.to_thread(eventually, lambda: len(self.at_deletion) >= number, what=f"{number} pods deleting")

    def _note(self, pod: Document) -> None:
        uid, address = pod["metadata"]["uid"], f"{pod['status'].get('podIP')}:8000"
        streaming = len(self._load.streaming_from(address))
        if "deletionTimestamp" in pod["metadata"]:
            self.at_deletion.setdefault(uid, self._before.get(uid, streaming))
        else:
            self._before[uid] = streaming


@asynccontextmanager
async def _under_load(servers: Servers, replica: Replica, seed: int) -> AsyncIterator[tuple[Load, Deletions]]:
    """Run the load; when the block ends, wait for every terminating pod to go while the load goes on."""
    async with Load(replica.proxy, MODEL, clients=CLIENTS, seed=seed) as load:
        deletions = Deletions(servers, load)
        watching = asyncio.create_task(deletions.watch())
        await asyncio.sleep(WARM_UP_SECONDS)
        await deletions.every_pod_streams()
        yield load, deletions
        await asyncio.to_thread(_until_nobody_terminates, servers)
        watching.cancel()


def _until_nobody_terminates(servers: Servers) -> None:
    eventually(
        lambda: not [pod for pod in servers.pods() if "deletionTimestamp" in pod["metadata"]],
        seconds=60,
        what="all terminating pods gone",
    )


def _until_garbage_is_collected(servers: Servers) -> None:
    """Wait until the garbage collector knows the kind, which it learns at the latest half a minute after the CRD.

    Before, the pods of a deleted server stay that long, and their streams have ended when they go.
    """
    servers.serve("first", replicas=0)
    servers.kubectl("delete", "isvr/first")
    eventually(lambda: not servers.get("deployment", "first"), seconds=90, what="the deployment collected")


def _audit(servers: Servers, load: Load, deletions: Deletions, *, deleted: int) -> None:
    """Every request complete as its client counted and as its engine wrote it; the run itself valid."""
    assert len(deletions.at_deletion) >= deleted, "the run is invalid: too few pods were deleted"
    assert all(deletions.at_deletion.values()), f"the run is invalid: a pod was idle: {deletions.at_deletion}"
    assert not load.losses, str(load.losses[:3])
    assert len(load.records) > CLIENTS
    # An engine writes its line when the last byte is on its way: the client may have it first.
    eventually(
        lambda: load.records.keys() <= servers.engine_ends().keys(), what="an end of every request at its engine"
    )
    ends = servers.engine_ends()
    seen = {one: (end["outcome"], end["tokens_sent"]) for one, end in ends.items()}
    wrong = [record for record in load.records.values() if seen[record.id] != ("finished", record.wanted)]
    assert not wrong, wrong[:3]


def _restart(servers: Servers) -> None:
    servers.kubectl("rollout", "restart", "deployment/alpha")
    servers.kubectl("rollout", "status", "deployment/alpha", "--timeout=120s")


def _scale_down(servers: Servers) -> None:
    servers.kubectl("scale", "isvr/alpha", "--replicas=2")


def _delete_pod(servers: Servers) -> None:
    servers.kubectl("delete", "pod", servers.pods("alpha")[0]["metadata"]["name"], "--wait=false")


@pytest.mark.parametrize(
    ("act", "deleted"), [(_restart, 4), (_scale_down, 2), (_delete_pod, 1)], ids=["restart", "scale-down", "delete-pod"]
)
async def test_no_stream_is_lost_when(
    act: Callable[[Servers], None], deleted: int, replica: Replica, installed: Cluster, namespace: str
) -> None:
    servers = Servers(installed, namespace)
    await asyncio.to_thread(servers.serve, "alpha", replicas=4, args=SERVERS_ARGS)
    async with _under_load(servers, replica, seed=7) as (load, deletions):
        await asyncio.to_thread(act, servers)
        await deletions.seen(deleted)
    _audit(servers, load, deletions, deleted=deleted)


async def test_no_stream_is_lost_when_one_of_two_servers_of_a_model_is_deleted(
    replica: Replica, installed: Cluster, namespace: str
) -> None:
    servers = Servers(installed, namespace)
    await asyncio.to_thread(_until_garbage_is_collected, servers)
    await asyncio.to_thread(servers.serve, "alpha", replicas=2, args=SERVERS_ARGS)
    await asyncio.to_thread(servers.serve, "beta", replicas=2, args=SERVERS_ARGS)
    async with _under_load(servers, replica, seed=8) as (load, deletions):
        await asyncio.to_thread(servers.kubectl, "delete", "isvr/alpha")
        await asyncio.to_thread(eventually, lambda: not servers.pods("alpha"), seconds=60)
    _audit(servers, load, deletions, deleted=2)


async def test_without_the_gate_the_same_restart_loses_streams(
    replica: Replica, installed: Cluster, namespace: str
) -> None:
    servers = Servers(installed, namespace)
    drain = {"timeoutSeconds": 30, "settleSeconds": 1, "gate": "None"}
    await asyncio.to_thread(servers.serve, "alpha", replicas=4, args=SERVERS_ARGS, drain=drain)
    async with _under_load(servers, replica, seed=7) as (load, _):
        await asyncio.to_thread(_restart, servers)
    assert load.losses, "engines that get SIGTERM at once must cost streams, or the proof proves nothing"


async def test_without_the_barrier_the_finalizer_goes_while_streams_run(installed: Cluster, namespace: str) -> None:
    servers = Servers(installed, namespace)
    command = ("-m", "tests.cluster.without_barrier", "run")
    with Replica(installed, [namespace], command=command) as replica:
        await asyncio.to_thread(servers.serve, "alpha", replicas=4, args=SERVERS_ARGS)
        async with Load(replica.proxy, MODEL, clients=CLIENTS, tokens=(600, 700), seed=7) as load:
            await asyncio.sleep(WARM_UP_SECONDS)
            pod = servers.pods("alpha")[0]
            assert load.streaming_from(f"{pod['status']['podIP']}:8000"), "nothing was in flight: an invalid run"
            await asyncio.to_thread(servers.kubectl, "delete", "pod", pod["metadata"]["name"], "--wait=false")
            await asyncio.to_thread(eventually, lambda: _finalizer_is_gone(servers, pod), seconds=5)
    assert load.losses, "a stream of 9 s must be cut when its pod is released within 5 s"


def _finalizer_is_gone(servers: Servers, pod: Document) -> bool:
    found = servers.get("pod", pod["metadata"]["name"])
    return not found or "tailrace.dev/drain" not in found["metadata"].get("finalizers", [])
