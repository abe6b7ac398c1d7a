"""One drain at a time: the finalizer, the deadline, the liveness kill, and clients that stream to the pod itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.load import Load
from tests.cluster.replica import Replica
from tests.cluster.servers import MODEL, Document, Servers, eventually, inference_server, model_server_template

pytestmark = pytest.mark.cluster

DRAIN = "tailrace.dev/drain"


@pytest.fixture
def replica(installed: Cluster, namespace: str) -> Iterator[Replica]:
    with Replica(installed, [namespace]) as running:
        yield running


@pytest.fixture
def servers(installed: Cluster, namespace: str) -> Servers:
    return Servers(installed, namespace)


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def _body(tokens: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {
        "model": MODEL,
        "stream": True,
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": "x"}],
        **more,
    }


def _finalizers(servers: Servers, name: str) -> list[str]:
    found: list[str] = servers.get("pod", name).get("metadata", {}).get("finalizers", [])
    return found


async def _running(pod: Document) -> float:
    """Return how many requests the engine itself says it runs."""
    async with _session() as session, session.get(f"http://{pod['status']['podIP']}:8000/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running"))


async def test_the_finalizer_stays_while_the_engine_is_busy_and_goes_soon_after_zero(
    replica: Replica, servers: Servers
) -> None:
    await asyncio.to_thread(servers.serve, "alpha")
    pod = servers.pods("alpha")[0]
    name = pod["metadata"]["name"]
    async with Load(replica.proxy, MODEL, clients=0) as load:
        stream = asyncio.create_task(load.one(400, "x"))  # about 6 s
        await asyncio.sleep(0.5)
        servers.kubectl("delete", "pod", name, "--wait=false")
        busy_with_finalizer = 0
        while not stream.done():
            if await _running(pod) > 0 and not stream.done():
                assert DRAIN in await asyncio.to_thread(_finalizers, servers, name)
                busy_with_finalizer += 1
            await asyncio.sleep(0.2)
        await asyncio.to_thread(eventually, lambda: DRAIN not in _finalizers(servers, name), seconds=5)
    assert busy_with_finalizer > 2
    assert stream.result().complete, stream.result()


async def test_a_stuck_stream_is_ended_at_the_deadline_and_everybody_is_told(
    replica: Replica, servers: Servers
) -> None:
    template = model_server_template(servers.log, args=("--faults",))
    servers.apply(inference_server("alpha", template, drain={"timeoutSeconds": 5, "settleSeconds": 1}))
    await asyncio.to_thread(servers.wait_ready, "alpha", 1)
    pod = servers.pods("alpha")[0]
    name, engine = pod["metadata"]["name"], f"http://{pod['status']['podIP']}:8000"
    async with _session() as session:
        url, headers = f"{replica.proxy}/v1/chat/completions", {"x-request-id": "stuck-1"}
        async with session.post(url, json=_body(500), headers=headers) as answer:
            await session.post(f"{engine}/faults", json={"stall_request": "stuck"})
            reading = asyncio.create_task(answer.read())
            servers.kubectl("delete", "pod", name, "--wait=false")
            deleted = time.monotonic()
            text = (await asyncio.wait_for(reading, 15)).decode()
    assert 4 < time.monotonic() - deleted < 9
    assert "[DONE]" not in text
    last = json.loads(text.rstrip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "drain_deadline"
    await asyncio.to_thread(eventually, lambda: not servers.get("pod", name), seconds=15)
    assert await asyncio.to_thread(eventually, lambda: servers.events("DrainDeadlineExceeded"), seconds=5)
    assert 'tailrace_requests_lost_total{reason="cut"} 1' in replica.metrics().replace(".0", "")


async def test_a_hung_engine_is_restarted_without_waiting_for_the_drain_and_serves_again(
    replica: Replica, servers: Servers
) -> None:
    template = model_server_template(servers.log, args=("--faults",), liveness=True)
    servers.apply(inference_server("alpha", template))
    await asyncio.to_thread(servers.wait_ready, "alpha", 1)
    pod = servers.pods("alpha")[0]
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    async with Load(replica.proxy, MODEL, clients=4, tokens=(200, 300)):
        await asyncio.sleep(1)
        async with _session() as session:
            await session.post(f"http://{pod['status']['podIP']}:8000/faults", json={"hang": True})
        hung = time.monotonic()
        await asyncio.to_thread(eventually, lambda: _restarts(servers, name) == 1, seconds=25)
        assert time.monotonic() - hung < 20, "the drain's 30 s must not hold a liveness kill back"
        await asyncio.to_thread(eventually, lambda: _is_ready(replica, uid), seconds=20)
    async with Load(replica.proxy, MODEL, clients=0) as load:
        assert (await load.one(5, "x")).complete
    assert DRAIN in _finalizers(servers, name)


def _restarts(servers: Servers, name: str) -> int:
    statuses = servers.get("pod", name)["status"]["containerStatuses"]
    return int(next(one for one in statuses if one["name"] == "engine")["restartCount"])


def _is_ready(replica: Replica, uid: str) -> bool:
    return any(one["uid"] == uid and one["state"] == "ready" for one in replica.endpoints())


async def test_clients_that_stream_to_the_pod_itself_after_route_lose_nothing(
    replica: Replica, servers: Servers
) -> None:
    await asyncio.to_thread(servers.serve, "alpha", replicas=3)
    stop = asyncio.Event()
    async with _session() as session:
        clients = [asyncio.create_task(_direct(session, replica, stop)) for _ in range(16)]
        await asyncio.sleep(1.5)
        servers.kubectl("rollout", "restart", "deployment/alpha")
        await asyncio.to_thread(servers.kubectl, "rollout", "status", "deployment/alpha", "--timeout=90s")
        await asyncio.to_thread(
            eventually,
            lambda: not [pod for pod in servers.pods() if "deletionTimestamp" in pod["metadata"]],
            seconds=60,
        )
        stop.set()
        counts = await asyncio.gather(*clients)
    assert sum(counts) > 16


async def _direct(session: aiohttp.ClientSession, replica: Replica, stop: asyncio.Event) -> int:
    """Ask /route, stream from the pod, complete; assert that every answer is whole; return how many there were."""
    complete = 0
    while not stop.is_set():
        async with session.get(f"{replica.routing}/route", params={"model": MODEL, "tokens": "100"}) as answer:
            assert answer.status == 200, await answer.text()
            address = answer.headers["x-gateway-destination-endpoint"]
            attempt = answer.headers["x-tailrace-request"]
        async with session.post(f"http://{address}/v1/chat/completions", json=_body(80)) as answer:
            text = await answer.text()
        assert text.endswith("data: [DONE]\n\n")
        assert text.count('"content":"t') == 80
        async with session.post(f"{replica.routing}/complete/{attempt}") as answer:
            assert answer.status == 200
        complete += 1
    return complete
