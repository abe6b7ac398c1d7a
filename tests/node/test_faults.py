"""What goes wrong while pods drain on a real kubelet: each ends as docs/drain.md says, in time."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request

from tests.cluster.load import Load
from tests.cluster.servers import MODEL, Document, Servers, eventually
from tests.node.configuration import NODE
from tests.node.documents import FRAGILE, RELEASE, SERVER, SYSTEM
from tests.node.loads import ENDLESS, LONG, address_of, one_stream, terminating, under_load
from tests.node.nodes import NodeCluster
from tests.node.release import AnyNode, Release
from tests.node.witness import OURS


async def test_a_drain_outlives_a_kubelet_and_a_containerd_that_are_killed(
    own: NodeCluster, servers: Servers, release: Release
) -> None:
    async with one_stream(servers, release.proxy) as (stream, pod):
        servers.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        await asyncio.sleep(1)
        assert not stream.done(), "the stream had ended before the faults: an invalid run"
        for name in ("kubelet", "containerd"):  # by this thread: a process ends with the thread that has started it
            own.processes[name].kill()
        await asyncio.sleep(1)
        own.start_again()
        assert (await stream).complete, stream.result()
    await asyncio.to_thread(eventually, lambda: not terminating(servers), seconds=30, what="the pod gone")
    await asyncio.to_thread(servers.wait_ready, SERVER, 2)


async def test_a_forced_delete_costs_the_streams_of_that_pod_alone_and_leaves_nothing(
    own: NodeCluster, servers: Servers, release: Release
) -> None:
    async with under_load(servers, release) as (load, witness):
        pod = max(servers.pods(SERVER), key=lambda one: len(load.streaming_from(address_of(one))))
        address = address_of(pod)
        assert load.streaming_from(address), "the pod is idle: an invalid run"
        servers.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
        await witness.gone(1)
        await asyncio.to_thread(eventually, lambda: not containers(own, pod), seconds=30, what="containers ended")
        await asyncio.to_thread(servers.wait_ready, SERVER, 2)
    assert load.losses, "nothing was lost: an invalid run"
    assert {one.endpoint for one in load.losses} == {address}


def containers(node: NodeCluster, pod: Document) -> list[str]:
    """Return the pod's containers that run."""
    tasks = node.ctr("tasks", "ls").splitlines()[1:]
    running = {line.split()[0] for line in tasks if line.split()[2] == "RUNNING"}
    ours = node.ctr("containers", "ls", "-q", f'labels."io.kubernetes.pod.uid"=={pod["metadata"]["uid"]}').split()
    return [one for one in ours if one in running]


async def test_a_node_that_is_deleted_ends_its_drains_at_once(
    own: NodeCluster, servers: Servers, release: Release
) -> None:
    async with one_stream(servers, release.proxy, ENDLESS) as (stream, pod):
        name = pod["metadata"]["name"]
        own.processes["kubelet"].stop()  # or it would end the container, and with it the stream, a moment later
        try:
            servers.kubectl("delete", "pod", name, "--wait=false")
            own.kubectl("delete", "node", NODE)
            await asyncio.to_thread(eventually, lambda: OURS not in finalizers(servers, name), seconds=10)
            assert not stream.done(), "the drain ended because its stream did: an invalid run"
        finally:
            own.processes["kubelet"].start()
    await asyncio.to_thread(eventually, own.is_ready, seconds=30)
    await asyncio.to_thread(eventually, lambda: not terminating(servers), seconds=30)
    await asyncio.to_thread(servers.wait_ready, SERVER, 2)


def finalizers(servers: Servers, name: str) -> list[str]:
    """Return the pod's finalizers, none when it is gone."""
    found: list[str] = servers.get("pod", name).get("metadata", {}).get("finalizers", [])
    return found


async def test_a_killed_router_costs_its_own_streams_and_stops_no_drain(
    node: AnyNode, servers: Servers, release: Release
) -> None:
    async with under_load(servers, release) as (load, witness):
        servers.kubectl("delete", "pod", servers.pods(SERVER)[0]["metadata"]["name"], "--wait=false")
        killed_at = time.time()
        node.kubectl("delete", "pod", routers(node)[0], "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false")
        await witness.gone(1, seconds=40)
        await asyncio.to_thread(servers.wait_ready, SERVER, 2)
        node.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", SYSTEM, "--timeout=60s")
    late = [one for one in load.losses if one.started_at > killed_at + 5]
    assert not late, str(late[:3])


def routers(node: AnyNode) -> list[str]:
    """Return the names of the replicas, those included that stop."""
    pods = node.get("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")["items"]
    return [pod["metadata"]["name"] for pod in pods]


async def test_without_an_operator_containers_end_on_time_and_one_that_comes_frees_what_is_left(
    own: NodeCluster, servers: Servers, release: Release
) -> None:
    pod = servers.pods(SERVER)[0]
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    own.kubectl("scale", f"deployment/{RELEASE}", "-n", SYSTEM, "--replicas=0")
    await asyncio.to_thread(eventually, lambda: not routers(own), what="no operator")
    async with Load(f"http://{address}:8000", MODEL, clients=0) as load:
        stream = asyncio.create_task(load.one(LONG, "x"))
        await asyncio.to_thread(eventually, lambda: [one for one in load.running if one.received], seconds=10)
        servers.kubectl("delete", "pod", name, "--wait=false")
        record = await stream
    assert record.complete, record
    await asyncio.to_thread(eventually, lambda: not containers(own, pod), seconds=45, what="containers ended")
    assert OURS in finalizers(servers, name)
    own.kubectl("scale", f"deployment/{RELEASE}", "-n", SYSTEM, "--replicas=2")
    await asyncio.to_thread(eventually, lambda: not servers.get("pod", name), seconds=30, what="the object gone")
    own.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", SYSTEM, "--timeout=60s")
    await asyncio.to_thread(servers.wait_ready, SERVER, 2)


async def test_a_hung_engine_is_killed_on_time_and_serves_again(
    own: NodeCluster, servers: Servers, release: Release
) -> None:
    await asyncio.to_thread(servers.wait_ready, FRAGILE, 1)
    pod = servers.pods(FRAGILE)[0]
    async with Load(release.proxy, FRAGILE, clients=2, tokens=(200, 300)):
        await asyncio.sleep(1)
        hang(pod["status"]["podIP"])
        await asyncio.to_thread(eventually, lambda: restarts(servers.pods(FRAGILE)[0]) > 0, seconds=20)
        await asyncio.to_thread(servers.wait_ready, FRAGILE, 1)
    assert servers.pods(FRAGILE)[0]["metadata"]["uid"] == pod["metadata"]["uid"]
    servers.kubectl("delete", "isvr", FRAGILE, "--wait=false")


def hang(address: str) -> None:
    """Make the engine answer nothing any more."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{address}:8000/faults", json.dumps({"hang": True}).encode(), headers)
    urllib.request.urlopen(request, timeout=5).close()


def restarts(pod: Document) -> int:
    """Return how often the pod's engine was started again."""
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
