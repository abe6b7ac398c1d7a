"""Ends of an installation with drains running: nothing is stuck, or one documented command frees it."""

from __future__ import annotations

import asyncio
import json

from tests.app.programs import tailrace
from tests.cluster.load import Load
from tests.cluster.servers import Servers, eventually
from tests.node.documents import SERVER
from tests.node.loads import one_stream, terminating
from tests.node.release import AnyNode, Release
from tests.node.witness import OURS

FOREIGN = "example.com/keep"


async def test_a_namespace_that_is_deleted_drains_and_goes(node: AnyNode, others: Servers, release: Release) -> None:
    async with Load(release.proxy, "other", clients=0) as load:
        streams = [asyncio.create_task(load.one(80, "x")) for _ in range(4)]
        await asyncio.to_thread(eventually, lambda: len([one for one in load.running if one.received]) == 4)
        node.kubectl("delete", "namespace", others.namespace, "--wait=false")
        records = [await stream for stream in streams]
    assert [one for one in records if not one.complete] == []
    await asyncio.to_thread(eventually, lambda: not node.get("namespace", others.namespace), seconds=40)


async def test_an_uninstall_with_a_drain_running_leaves_nothing_of_ours_and_all_of_others(
    node: AnyNode, servers: Servers, release: Release
) -> None:
    async with one_stream(servers, release.proxy) as (stream, pod):
        name = pod["metadata"]["name"]
        finalizers = {"metadata": {"finalizers": [*pod["metadata"]["finalizers"], FOREIGN]}}
        servers.kubectl("patch", "pod", name, "--type=merge", "-p", json.dumps(finalizers))
        servers.kubectl("delete", "pod", name, "--wait=false")
        assert not stream.done(), "the stream had ended before the uninstall: an invalid run"
        await asyncio.to_thread(release.uninstall)
        assert (await stream).complete, stream.result()
    held = {one["metadata"]["name"]: one["metadata"].get("finalizers", []) for one in servers.pods()}
    assert held.pop(name) == [FOREIGN]
    assert [one for one in held.values() if OURS in one] == []
    servers.kubectl("patch", "pod", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    await asyncio.to_thread(eventually, lambda: not terminating(servers), seconds=30)
    await asyncio.to_thread(the_rest_goes, node, servers)


def the_rest_goes(node: AnyNode, servers: Servers) -> None:
    """Delete in the wrong order, after the operator: our finalizer holds pods until the documented command."""
    went = next(pod["metadata"] for pod in servers.pods(SERVER))
    servers.kubectl("delete", "pod", went["name"], "--wait=false")
    eventually(lambda: fresh(servers, went["uid"]), seconds=30, what="a pod that was made without an operator")
    node.kubectl("delete", "namespace", servers.namespace, "--wait=false")
    eventually(lambda: ended(servers), seconds=45, what="every container ended, whoever is away")
    held = [pod for pod in servers.pods() if OURS in pod["metadata"].get("finalizers", ())]
    assert held, "nothing was stuck: an invalid run"
    code, output, errors = tailrace(
        "release-finalizers", "--terminating", "-n", servers.namespace, "--kubeconfig", str(node.kubeconfig)
    )
    assert (code, errors) == (0, ""), output
    eventually(lambda: not node.get("namespace", servers.namespace), seconds=30, what="the namespace gone")


def fresh(servers: Servers, uid: str) -> bool:
    """Whether the Deployment has made a new pod, which carries our finalizer."""
    pods = [pod["metadata"] for pod in servers.pods(SERVER) if "deletionTimestamp" not in pod["metadata"]]
    return any(OURS in pod.get("finalizers", ()) for pod in pods) and uid not in {pod["uid"] for pod in pods}


def ended(servers: Servers) -> bool:
    """Whether every pod has ended."""
    return all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in servers.pods())
