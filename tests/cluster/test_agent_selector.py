"""InferenceServers that select pods of somebody else: how pods enter, leave, and are let go."""

import pytest
from tests.cluster.agent_fixtures import agent, conditions, container, inference_server, installed
from tests.cluster.agents import AgentProcess
from tests.cluster.clusters import Cluster

from tailrace.core.model import EndpointState
from tailrace.link import EndpointReport

pytestmark = pytest.mark.cluster
__all__ = ["agent", "installed"]
SELECTOR = {"matchLabels": {"app": "llm"}}


def make_pod(cluster: Cluster, namespace: str, name: str, **labels: str) -> None:
    meta = {"name": name, "namespace": namespace, "labels": {"app": "llm"} | labels}
    spec = {"containers": [container()], "terminationGracePeriodSeconds": 5}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def pod(cluster: Cluster, namespace: str, name: str) -> dict[str, dict[str, dict[str, str]]]:
    return cluster.get("pod", name, "-n", namespace)


def finalizers(cluster: Cluster, namespace: str, name: str) -> list[str]:
    return list(pod(cluster, namespace, name)["metadata"].get("finalizers", []))


async def adopted(agent: AgentProcess, cluster: Cluster, namespace: str) -> str:
    """Make a pod and an InferenceServer "one" that selects it; return its uid when it is a ready endpoint."""
    make_pod(cluster, namespace, "a")
    cluster.apply(inference_server("one", namespace, selector=SELECTOR))
    await agent.until(lambda: [spec for spec in agent.of(f"{namespace}/one") if spec.ready])
    return agent.of(f"{namespace}/one")[0].uid


async def test_selected_pods_are_adopted_whether_older_or_newer_than_the_server(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    await adopted(agent, installed, namespace)
    make_pod(installed, namespace, "b")
    make_pod(installed, namespace, "other", app="web")
    await agent.until(lambda: len([spec for spec in agent.of(f"{namespace}/one") if spec.ready]) == 2)
    found = pod(installed, namespace, "b")["metadata"]
    assert found["labels"]["tailrace.dev/server"] == "one"
    assert "tailrace.dev/drain" in found["finalizers"]
    assert found["annotations"]["tailrace.dev/drain-timeout-seconds"] == "600"
    assert {spec.name for spec in agent.of(f"{namespace}/one")} == {"a", "b"}
    await agent.until(
        lambda: conditions(installed, "one", namespace).get("DrainProtected", {}).get("status") == "False"
    )


async def test_a_pod_of_another_server_stays_there_and_the_condition_says_so(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    await adopted(agent, installed, namespace)
    installed.apply(inference_server("two", namespace, selector=SELECTOR))
    await agent.until(lambda: "AmbiguousSelector" in conditions(installed, "two", namespace))
    assert pod(installed, namespace, "a")["metadata"]["labels"]["tailrace.dev/server"] == "one"
    assert "AmbiguousSelector" not in conditions(installed, "one", namespace)


async def test_a_pod_that_left_the_selector_drains_before_it_is_let_go(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    uid, key = await adopted(agent, installed, namespace), f"{namespace}/one"
    installed.kubectl("label", "pod", "a", "-n", namespace, "app=web", "--overwrite")
    await agent.until(lambda: agent.endpoints[uid].cordon is not None)
    agent.desire(endpoints=(EndpointReport(uid, key, EndpointState.DRAINING, 1, gate_seen=False),))
    assert "tailrace.dev/drain" in finalizers(installed, namespace, "a")
    agent.desire(endpoints=(EndpointReport(uid, key, EndpointState.DRAINED, 0, gate_seen=False),))
    await agent.until(lambda: uid not in agent.endpoints)
    found = pod(installed, namespace, "a")["metadata"]
    assert "finalizers" not in found
    assert not [key for key in [*found["labels"], *found.get("annotations", {})] if key.startswith("tailrace.dev/")]


async def test_a_pod_that_comes_back_into_the_selector_is_served_again(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    uid = await adopted(agent, installed, namespace)
    installed.kubectl("label", "pod", "a", "-n", namespace, "app=web", "--overwrite")
    await agent.until(lambda: agent.endpoints[uid].cordon is not None)
    installed.kubectl("label", "pod", "a", "-n", namespace, "app=llm", "--overwrite")
    await agent.until(lambda: agent.endpoints[uid].cordon is None)
    assert "tailrace.dev/drain" in finalizers(installed, namespace, "a")


async def test_adopted_pods_are_free_some_time_after_their_server_is_deleted(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    await adopted(agent, installed, namespace)
    installed.kubectl("delete", "isvr", "one", "-n", namespace)
    await agent.until(lambda: f"{namespace}/one" not in agent.servers)
    await agent.until(lambda: not finalizers(installed, namespace, "a"), seconds=20)
    assert "tailrace.dev/server" not in pod(installed, namespace, "a")["metadata"]["labels"]


async def test_a_pod_that_a_person_took_out_of_its_deployment_keeps_no_finalizer(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace))
    await agent.until(lambda: [spec for spec in agent.of(f"{namespace}/one") if spec.ready])
    name = agent.of(f"{namespace}/one")[0].name
    installed.kubectl("label", "pod", name, "-n", namespace, "tailrace.dev/server-")
    await agent.until(lambda: not finalizers(installed, namespace, name))
