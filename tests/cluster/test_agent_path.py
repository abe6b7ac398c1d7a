"""From an InferenceServer to pods that are observed, and from a release to a pod that is gone."""

import asyncio

import pytest
from tests.cluster.agent_fixtures import QUICK, agent, inference_server, installed, release_of
from tests.cluster.agents import AgentProcess
from tests.cluster.clusters import Cluster

from tailrace.core.model import DrainOutcome, DrainReason, EndpointSpec, Release

pytestmark = pytest.mark.cluster
__all__ = ["agent", "installed"]


async def ready_endpoint(agent: AgentProcess, cluster: Cluster, namespace: str) -> EndpointSpec:
    """Make an InferenceServer "one" and return its first ready endpoint."""
    cluster.apply(inference_server("one", namespace))
    key = f"{namespace}/one"
    await agent.until(lambda: [each for each in agent.of(key) if each.ready])
    return next(each for each in agent.of(key) if each.ready)


async def first_snapshot(agent: AgentProcess) -> None:
    """Wait until the agent has told the whole truth once."""
    await agent.until(lambda: agent.snapshots)


async def test_an_inference_server_becomes_a_deployment_whose_pods_are_told(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, replicas=2))
    key = f"{namespace}/one"
    await agent.until(lambda: len([spec for spec in agent.of(key) if spec.ready]) == 2)
    assert agent.servers[key].models[0].name == f"model-{namespace}-one"
    deployment = installed.get("deployment", "one", "-n", namespace)
    assert deployment["metadata"]["ownerReferences"][0]["controller"] is True
    assert deployment["spec"]["replicas"] == 2
    assert {spec.address.split(":")[1] for spec in agent.of(key)} == {"8000"}


async def test_the_watches_tell_what_happens_without_a_new_list_in_all_namespaces(
    installed: Cluster, namespace: str
) -> None:
    key = f"{namespace}/one"
    async with AgentProcess(installed, **QUICK | {"resync_seconds": 600}) as process:
        await process.leading()
        await first_snapshot(process)
        installed.apply(inference_server("one", namespace))
        await process.until(lambda: [spec for spec in process.of(key) if spec.ready])
        pod = process.of(key)[0]
        installed.kubectl("delete", "pod", pod.name, "-n", namespace, "--wait=false")
        await process.until(lambda: process.endpoints[pod.uid].deletion)
        process.desire(release_of(process.endpoints[pod.uid]))
        await process.until(lambda: pod.uid not in process.endpoints)
        installed.kubectl("delete", "isvr", "one", "-n", namespace)
        await process.until(lambda: key not in process.servers)
        assert process.snapshots == 1


async def test_a_deleted_pod_stays_until_its_release_and_is_gone_soon_after(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    victim = await ready_endpoint(agent, installed, namespace)
    installed.kubectl("delete", "pod", victim.name, "-n", namespace, "--wait=false")
    await agent.until(lambda: agent.endpoints[victim.uid].ended)
    deletion = agent.endpoints[victim.uid].deletion
    assert deletion is not None
    # Best effort: when its successor is seen before its deletion, there are enough pods without it, as in a scale-down.
    assert deletion.reason in {DrainReason.DELETE, DrainReason.SCALE_DOWN}
    assert "tailrace.dev/drain" in installed.get("pod", victim.name, "-n", namespace)["metadata"]["finalizers"]
    agent.desire(release_of(agent.endpoints[victim.uid]))
    await agent.until(lambda: victim.uid not in agent.endpoints, seconds=5)
    assert installed.get("pod", victim.name, "-n", namespace) == {}


async def test_a_release_is_written_down_in_events_and_in_the_status(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    victim = await ready_endpoint(agent, installed, namespace)
    installed.kubectl("delete", "pod", victim.name, "-n", namespace, "--wait=false")
    await agent.until(lambda: agent.endpoints[victim.uid].deletion)
    agent.desire(release_of(agent.endpoints[victim.uid], DrainOutcome.DEADLINE, lost=1))

    def drains() -> list[dict[str, object]]:
        return list(installed.get("isvr", "one", "-n", namespace).get("status", {}).get("drains", []))

    await agent.until(drains)
    told = drains()[0]
    assert (told["pod"], told["inFlightAtStart"], told["finished"], told["lost"]) == (victim.name, 3, 2, 1)

    def events() -> set[str]:
        found = installed.get("events.events.k8s.io", "-n", namespace)["items"]
        return {event["regarding"]["kind"] for event in found if event["reason"] == "DrainDeadlineExceeded"}

    await agent.until(lambda: events() == {"Pod", "InferenceServer"})


async def test_a_pod_that_lives_on_keeps_its_finalizer_whatever_is_released(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    victim = await ready_endpoint(agent, installed, namespace)
    agent.cordon(victim.uid, draining=True, generation=7)
    await agent.until(lambda: agent.endpoints[victim.uid].cordon == 7)
    agent.desire(Release(victim.uid, DrainReason.MANUAL, DrainOutcome.DRAINED, 1.0, 2.0, 0, 0, 0))
    await asyncio.sleep(1.0)
    pod = installed.get("pod", victim.name, "-n", namespace)
    assert "tailrace.dev/drain" in pod["metadata"]["finalizers"]
    agent.cordon(victim.uid, draining=False, generation=8)
    await agent.until(lambda: agent.endpoints[victim.uid].cordon is None)


async def test_what_vanished_while_nobody_watched_is_missing_in_the_first_snapshot(
    installed: Cluster, namespace: str
) -> None:
    installed.apply(inference_server("fixed", namespace, endpoints=[{"address": "127.0.0.1:9"}]))
    for present in (True, False):
        async with AgentProcess(installed, watch_namespaces=namespace) as process:
            await first_snapshot(process)
            assert bool(process.of(f"{namespace}/fixed")) is present
        installed.kubectl("delete", "isvr", "fixed", "-n", namespace, "--ignore-not-found")
