"""What the status of an InferenceServer says, and when it is written."""

import asyncio

import pytest
from tests.cluster.agent_fixtures import agent, conditions, inference_server, installed
from tests.cluster.agents import AgentProcess
from tests.cluster.clusters import Cluster

from tailrace.core.model import EndpointState
from tailrace.link import EndpointReport

pytestmark = pytest.mark.cluster
__all__ = ["agent", "installed"]


def status(cluster: Cluster, namespace: str, name: str = "one") -> dict[str, object]:
    return dict(cluster.get("isvr", name, "-n", namespace).get("status", {}))


async def test_the_status_counts_endpoints_and_requests(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, replicas=2))
    key = f"{namespace}/one"
    await agent.until(lambda: status(installed, namespace).get("ready") == "2/2")
    agent.desire(
        endpoints=tuple(
            EndpointReport(spec.uid, key, EndpointState.READY, 4, gate_seen=False) for spec in agent.of(key)
        )
    )
    await agent.until(lambda: status(installed, namespace).get("inFlight") == 8)
    told = status(installed, namespace)
    assert (told["replicas"], told["readyReplicas"], told["capacity"]) == (2, 2, 64)
    assert told["selector"] == "tailrace.dev/server=one"
    found = conditions(installed, "one", namespace)
    assert {kind: found[kind]["status"] for kind in ("Ready", "Progressing", "Degraded", "DrainProtected")} == {
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
        "DrainProtected": "False",
    }
    assert found["DrainProtected"]["reason"] == "GateDisabled"


async def test_a_status_that_says_nothing_new_is_not_written(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, endpoints=[{"address": "127.0.0.1:9"}]))
    await agent.until(lambda: status(installed, namespace).get("ready") == "1/1")
    await asyncio.sleep(2)
    before = installed.get("isvr", "one", "-n", namespace)["metadata"]["resourceVersion"]
    await asyncio.sleep(5)
    assert installed.get("isvr", "one", "-n", namespace)["metadata"]["resourceVersion"] == before


async def test_a_node_without_gpu_labels_is_named_where_it_costs_long_prompts(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace))
    await agent.until(lambda: conditions(installed, "one", namespace).get("Ready", {}).get("status") == "True")
    message = conditions(installed, "one", namespace)["Ready"]["message"]
    assert "gets no long prompts" in message
    assert f"node {agent.of(f'{namespace}/one')[0].node}" in message


async def test_the_younger_server_of_a_pool_is_told_that_its_settings_do_not_count(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    shared = {"models": [{"name": f"shared-{namespace}"}]}
    installed.apply(inference_server("one", namespace, endpoints=[{"address": "127.0.0.1:9"}], **shared))
    await agent.until(lambda: f"{namespace}/one" in agent.servers)
    await asyncio.sleep(1.1)
    other = {"loadBalancing": {"strategy": "RoundRobin"}}
    installed.apply(inference_server("two", namespace, endpoints=[{"address": "127.0.0.1:8"}], **shared, **other))
    await agent.until(lambda: "PoolSettingsIgnored" in conditions(installed, "two", namespace))
    assert "PoolSettingsIgnored" not in conditions(installed, "one", namespace)


async def test_zero_replicas_is_not_ready_and_says_why(installed: Cluster, namespace: str, agent: AgentProcess) -> None:
    installed.apply(inference_server("one", namespace, replicas=0))
    await agent.until(lambda: conditions(installed, "one", namespace).get("Ready", {}).get("reason") == "ScaledToZero")
    await agent.until(lambda: conditions(installed, "one", namespace)["Progressing"]["reason"] == "Complete")
