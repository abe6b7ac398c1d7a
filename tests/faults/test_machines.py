"""A machine loses its power with drains under way, and addresses that come back with another pod."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.load import Load
from tests.cluster.servers import Document, Servers, eventually, model_server_template
from tests.faults import actions
from tests.faults.calls import on
from tests.faults.history import PowerLost
from tests.faults.rig import RESYNC_SECONDS, Rig

pytestmark = pytest.mark.cluster

WATCHES = on("watch", "pods")
STRANGERS = 6


@pytest.fixture
def kubelet(cluster: EmbeddedCluster) -> Iterator[EmbeddedCluster]:
    """Yield the cluster, with a running kubelet afterwards whatever happened."""
    yield cluster
    cluster.kubelet.restart()
    cluster._wait_for_nodes()


async def test_pods_that_drain_when_their_machine_dies_are_released_in_time(kubelet: EmbeddedCluster, rig: Rig) -> None:
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    async with rig.load(tokens=(100, 200)) as load:
        await asyncio.sleep(1)
        pod = rig.servers.pods("alpha")[0]
        rig.servers.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        await rig.gone_from_the_doors(pod, seconds=3)
        kubelet.kubelet.process.kill()
        rig.history.add(PowerLost(time.time()))
        await asyncio.sleep(2)
        kubelet.kubelet.start()
        await rig.settle(seconds=50)
    assert any(record.complete for record in load.records.values())
    await rig.check(load.records.values())


async def test_a_pod_with_the_address_of_one_that_vanished_gets_none_of_its_requests_after_the_next_list(
    cluster: EmbeddedCluster, rig: Rig
) -> None:
    """The stranger serves another model on the same node; nobody but the list tells that the old pod is gone."""
    await asyncio.to_thread(rig.servers.serve, "alpha", replicas=2)
    old = rig.servers.pods("alpha")[0]
    node, address = old["spec"]["nodeName"], old["status"]["podIP"]
    log = cluster.workdir / f"stranger-{rig.namespace}.jsonl"
    async with rig.load(clients=4) as load:
        with rig.proxy.failing(WATCHES, actions.cut_after(0)):
            rig.proxy.cut(WATCHES)
            stranger = await asyncio.to_thread(_swap, rig, old, node, log)
            await rig.gone_from_the_doors(old, seconds=RESYNC_SECONDS + 5)
            met = len(_asked(log))
            await asyncio.to_thread(eventually, lambda: _ready(rig.servers, stranger), what="the stranger is ready")
            await asyncio.sleep(2)
            assert len(_asked(log)) == met
        await asyncio.to_thread(rig.servers.kubectl, "uncordon", node)
        await asyncio.to_thread(rig.servers.kubectl, "delete", "pods", "-l", "app=stranger")
        await rig.settle()
    assert any(record.complete for record in load.records.values())
    _strange_answers_are_few(load, address)
    await rig.check(load.records.values())


def _swap(rig: Rig, old: Document, node: str, log: Path) -> str:
    """Put a stranger where the old pod was and return its name; the old one's successor must not be first."""
    address = old["status"]["podIP"]
    rig.servers.kubectl("cordon", node)
    rig.vanish(old)
    eventually(lambda: not _listens(address), what="the old pod's processes have ended")
    for number in range(STRANGERS):  # lower addresses may be free, and the old one is given back a moment later
        name = f"stranger-{number}"
        _start(rig.servers, name, model_server_template(log, model="other")["spec"] | {"nodeName": node})
        if eventually(partial(_address, rig.servers, name), what="the stranger has an address") == address:
            return name
    raise AssertionError(f"none of {STRANGERS} pods was given {address}")


def _start(servers: Servers, name: str, spec: Document) -> None:
    about = {"name": name, "labels": {"app": "stranger"}}
    servers.apply({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})


def _listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, 8000)) == 0


def _address(servers: Servers, name: str) -> str:
    return str(servers.get("pod", name).get("status", {}).get("podIP", ""))


def _ready(servers: Servers, name: str) -> bool:
    conditions = servers.get("pod", name).get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _asked(log: Path) -> list[Document]:
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if line["event"] in ("start", "refused")]


def _strange_answers_are_few(load: Load, address: str) -> None:
    """Hold that whatever was lost was lost at that address, when nobody could know."""
    wrong = [record for record in load.losses if not record.endpoint.startswith(address)]
    assert not wrong, wrong[:3]
