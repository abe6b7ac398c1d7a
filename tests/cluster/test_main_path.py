"""From `kubectl apply` to an answer: what the operator makes, and where requests go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.load import Load
from tests.cluster.replica import Replica
from tests.cluster.servers import MODEL, Document, Servers, eventually, inference_server, model_server_template

pytestmark = pytest.mark.cluster

H100, T4 = "NVIDIA-H100-80GB-HBM3", "Tesla-T4"
LONG_PROMPT = "word " * 4000  # 20,000 bytes are about 5,000 tokens


@pytest.fixture
def replica(installed: Cluster, namespace: str) -> Iterator[Replica]:
    with Replica(installed, [namespace]) as running:
        yield running


@pytest.fixture
def servers(installed: Cluster, namespace: str) -> Servers:
    return Servers(installed, namespace)


def _on(template: Document, product: str) -> Document:
    template["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": product}
    return template


async def _ask(replica: Replica, prompt: str = "hello", tokens: int = 4) -> tuple[int, str, dict[str, str]]:
    body = {"model": MODEL, "max_tokens": tokens, "messages": [{"role": "user", "content": prompt}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{replica.proxy}/v1/chat/completions", json=body) as answer,
    ):
        await answer.read()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, headers.get("x-gateway-destination-endpoint", ""), headers


def _by_name(replica: Replica, server: str) -> list[dict[str, Any]]:
    return [one for one in replica.endpoints() if one["server"].endswith(f"/{server}")]


def test_an_applied_server_becomes_ready_and_says_so(replica: Replica, servers: Servers) -> None:
    servers.serve("alpha", replicas=2)
    assert servers.condition("alpha", "Ready")["status"] == "True"
    assert servers.condition("alpha", "DrainProtected")["status"] == "True", servers.condition(
        "alpha", "DrainProtected"
    )
    columns = servers.kubectl("get", "isvr", "alpha").splitlines()[1].split()
    assert columns[:3] == ["alpha", MODEL, "2/2"]
    for pod in servers.pods("alpha"):
        assert "tailrace.dev/drain" in pod["metadata"]["finalizers"]


async def test_gpu_memory_comes_from_node_labels_and_long_prompts_go_where_it_is(
    replica: Replica, servers: Servers
) -> None:
    big = _on(model_server_template(servers.log, gpus=2), H100)
    small = _on(model_server_template(servers.log, gpus=1), T4)
    servers.apply(inference_server("big", big, replicas=1), inference_server("small", small, replicas=1))
    await asyncio.to_thread(servers.wait_ready, "big", 1)
    await asyncio.to_thread(servers.wait_ready, "small", 1)
    (h100,), (t4,) = _by_name(replica, "big"), _by_name(replica, "small")
    assert (h100["gpuMemoryGB"], t4["gpuMemoryGB"]) == (160, 16)
    async with Load(replica.proxy, MODEL, clients=8, tokens=(30, 60)):  # so that the big one is the busier one at times
        answers = [await _ask(replica, LONG_PROMPT) for _ in range(12)]
    assert {endpoint for _, endpoint, _ in answers} == {h100["address"]}


async def test_a_long_prompt_without_an_endpoint_for_it_is_refused_with_the_reason(
    replica: Replica, servers: Servers
) -> None:
    servers.apply(inference_server("small", _on(model_server_template(servers.log, gpus=1), T4)))
    await asyncio.to_thread(servers.wait_ready, "small", 1)
    status, _, headers = await _ask(replica, LONG_PROMPT)
    assert (status, headers["x-tailrace-dropped-reason"]) == (503, "rejected-no-qualified-endpoints")
    assert (await _ask(replica))[0] == 200


async def test_pods_that_are_not_ready_get_nothing(replica: Replica, servers: Servers) -> None:
    await asyncio.to_thread(servers.serve, "ready", replicas=1)
    slow = model_server_template(servers.log, args=("--startup-seconds", "60"))
    servers.apply(inference_server("loading", slow))
    loading = (await asyncio.to_thread(eventually, lambda: _by_name(replica, "loading")))[0]
    assert loading["state"] == "starting"
    assert loading["reason"]
    answers = [await _ask(replica) for _ in range(10)]
    assert all(status == 200 and endpoint != loading["address"] for status, endpoint, _ in answers)


async def test_a_model_without_a_ready_pod_is_503_and_an_unknown_one_404(replica: Replica, servers: Servers) -> None:
    servers.apply(inference_server("empty", model_server_template(servers.log), replicas=0))
    await asyncio.to_thread(eventually, lambda: servers.condition("empty", "Ready"))
    status, _, headers = await _ask(replica)
    assert (status, headers["x-tailrace-dropped-reason"]) == (503, "rejected-no-endpoints")
    assert int(headers["retry-after"]) >= 1
    servers.kubectl("delete", "isvr/empty")
    await asyncio.to_thread(eventually, lambda: not replica.get("/endpoints")["endpoints"])
    assert await _eventually_status(replica, 404)


async def _eventually_status(replica: Replica, wanted: int) -> bool:
    for _ in range(50):
        if (await _ask(replica))[0] == wanted:
            return True
        await asyncio.sleep(0.1)
    return False


async def test_an_edit_of_the_capacity_acts_at_once_and_restarts_nothing(replica: Replica, servers: Servers) -> None:
    await asyncio.to_thread(servers.serve, "alpha", replicas=1, capacity=8)
    before = [pod["metadata"]["uid"] for pod in servers.pods("alpha")]
    servers.kubectl("patch", "isvr/alpha", "--type=merge", "-p", '{"spec":{"capacity":1,"queue":{"maxRequests":0}}}')
    await asyncio.to_thread(eventually, lambda: replica.endpoints()[0]["capacity"] == 1, seconds=3)
    async with Load(replica.proxy, MODEL, clients=1, tokens=(100, 100)):
        await asyncio.sleep(0.5)
        status, _, headers = await _ask(replica)
    assert (status, headers["x-tailrace-dropped-reason"]) == (429, "rejected-saturated")
    assert int(headers["retry-after"]) >= 1
    assert [pod["metadata"]["uid"] for pod in servers.pods("alpha")] == before


def test_the_scale_subresource_scales_and_a_deployment_scaled_by_hand_is_brought_back(
    replica: Replica, servers: Servers
) -> None:
    servers.serve("alpha", replicas=1)
    servers.kubectl("scale", "isvr/alpha", "--replicas=3")
    servers.wait_ready("alpha", 3)
    servers.kubectl("scale", "deployment/alpha", "--replicas=1")
    eventually(lambda: servers.get("deployment", "alpha")["spec"]["replicas"] == 3)
    servers.wait_ready("alpha", 3)


def test_a_rollout_undo_stands(replica: Replica, servers: Servers) -> None:
    servers.serve("alpha", replicas=1)
    changed = inference_server("alpha", model_server_template(servers.log, args=("--seed", "42")), replicas=1)
    servers.apply(changed)
    eventually(lambda: "42" in _args(servers), what="the new template is applied")
    servers.kubectl("rollout", "status", "deployment/alpha", "--timeout=60s")
    servers.kubectl("rollout", "undo", "deployment/alpha")
    servers.kubectl("rollout", "status", "deployment/alpha", "--timeout=60s")
    servers.kubectl("scale", "isvr/alpha", "--replicas=2")  # a new generation that leaves the template alone
    servers.wait_ready("alpha", 2)
    assert "42" not in _args(servers)


def _args(servers: Servers) -> list[str]:
    containers = servers.get("deployment", "alpha")["spec"]["template"]["spec"]["containers"]
    found: list[str] = next(one for one in containers if one["name"] == "engine")["args"]
    return found


@pytest.fixture
def quick_replica(installed: Cluster, namespace: str) -> Iterator[Replica]:
    """Yield a replica that looks for pods without an owner every few seconds."""
    with Replica(installed, [namespace], resync_seconds="2") as running:
        yield running


async def test_a_selector_adopts_pods_that_somebody_else_runs(quick_replica: Replica, servers: Servers) -> None:
    template = model_server_template(servers.log)
    template["metadata"] = {"labels": {"app": "theirs"}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "theirs"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "theirs"}}, "template": template},
    }
    servers.apply(deployment, inference_server("adopted", selector={"matchLabels": {"app": "theirs"}}))
    await asyncio.to_thread(servers.wait_ready, "adopted", 2)
    assert (await _ask(quick_replica))[0] == 200
    assert all("tailrace.dev/drain" in pod["metadata"]["finalizers"] for pod in servers.pods("adopted"))
    assert servers.condition("adopted", "DrainProtected")["status"] == "False"
    servers.kubectl("delete", "isvr/adopted")
    await asyncio.to_thread(eventually, lambda: _holds_none(servers), seconds=45, what="finalizers are taken off")
    assert len(servers.get("pods", "-l", "app=theirs")["items"]) == 2


def _holds_none(servers: Servers) -> bool:
    found = servers.get("pods", "-l", "app=theirs")["items"]
    return not [pod for pod in found if "tailrace.dev/drain" in pod["metadata"].get("finalizers", [])]


async def test_fixed_endpoints_are_served_as_they_stand_in_the_document(replica: Replica, servers: Servers) -> None:
    await asyncio.to_thread(servers.serve, "backing", replicas=1, models=[{"name": "other"}])
    address = replica.endpoints()[0]["address"]
    servers.apply(inference_server("fixed", endpoints=[{"address": address, "gpuMemoryGB": 80}]))
    await asyncio.to_thread(eventually, lambda: len(replica.endpoints()) == 2)
    status, endpoint, _ = await _ask(replica)
    assert (status, endpoint) == (200, address)
