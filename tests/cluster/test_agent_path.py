"""From an InferenceServer to pods that are observed, and from a release to a pod that is gone."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.cluster import agents
from tests.cluster.agents import AgentProcess
from tests.cluster.clusters import Cluster
from tests.cluster.pods import server_container

from tailrace.core.model import DrainOutcome, DrainReason, EndpointSpec, Release

pytestmark = pytest.mark.cluster


def inference_server(name: str, namespace: str, **spec: object) -> dict[str, Any]:
    """Return an InferenceServer that runs scripted servers."""
    template = {"spec": {"containers": [server_container(ports=[{"containerPort": 8000}])]}}
    return {
        "apiVersion": "inference.tailrace.dev/v1alpha1",
        "kind": "InferenceServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"models": [{"name": f"model-{name}"}], "template": template, "drain": {"gate": "None"}} | spec,
    }


@pytest.fixture
def installed(cluster: Cluster) -> Cluster:
    agents.install(cluster)
    return cluster


@pytest.fixture
async def agent(installed: Cluster) -> AsyncIterator[AgentProcess]:
    async with AgentProcess(installed, lease_seconds=3, lease_renew_seconds=1, resync_seconds=2) as process:
        await process.leading()
        yield process


def release_of(spec: EndpointSpec, outcome: DrainOutcome = DrainOutcome.DRAINED) -> Release:
    assert spec.deletion is not None
    now = time.time()
    return Release(spec.uid, DrainReason.DELETE, outcome, spec.deletion.started_at, now, 3, 3, 0)


async def test_an_inference_server_becomes_a_deployment_whose_pods_are_told(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, replicas=2))
    key = f"{namespace}/one"
    await agent.until(lambda: len([spec for spec in agent.of(key) if spec.ready]) == 2)
    assert agent.servers[key].models[0].name == "model-one"
    deployment = installed.get("deployment", "one", "-n", namespace)
    assert deployment["metadata"]["ownerReferences"][0]["controller"] is True
    assert deployment["spec"]["replicas"] == 2
    assert {spec.address.split(":")[1] for spec in agent.of(key)} == {"8000"}


async def test_a_deleted_pod_stays_until_its_release_and_is_gone_soon_after(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace))
    key = f"{namespace}/one"
    await agent.until(lambda: [spec for spec in agent.of(key) if spec.ready])
    victim = agent.of(key)[0]
    installed.kubectl("delete", "pod", victim.name, "-n", namespace, "--wait=false")
    await agent.until(lambda: agent.endpoints[victim.uid].deletion)
    assert agent.endpoints[victim.uid].deletion.reason is DrainReason.DELETE  # type: ignore[union-attr]
    assert "tailrace.dev/drain" in installed.get("pod", victim.name, "-n", namespace)["metadata"]["finalizers"]
    await agent.until(lambda: agent.endpoints[victim.uid].ended)
    agent.desire(release_of(agent.endpoints[victim.uid]))
    began = time.monotonic()
    await agent.until(lambda: victim.uid not in agent.endpoints)
    assert installed.get("pod", victim.name, "-n", namespace) == {}
    print(f"released in {time.monotonic() - began:.2f} s")
