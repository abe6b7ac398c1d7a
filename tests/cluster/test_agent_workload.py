"""The Deployment of an InferenceServer: what the operator keeps, and what it leaves to people."""

import json

import pytest
from tests.cluster.agent_fixtures import QUICK, agent, conditions, container, inference_server, installed
from tests.cluster.agents import AgentProcess
from tests.cluster.clusters import Cluster

from tailrace.core.model import DrainReason, EndpointState
from tailrace.link import EndpointReport

pytestmark = pytest.mark.cluster
__all__ = ["agent", "installed"]


def deployment(cluster: Cluster, namespace: str) -> dict[str, object]:
    return cluster.get("deployment", "one", "-n", namespace)


def marker(cluster: Cluster, namespace: str) -> str:
    """Return the value of MARK in the Deployment's template."""
    found = cluster.get("deployment", "one", "-n", namespace)["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(str(each["value"]) for each in found if each["name"] == "MARK")


def marked(name: str, namespace: str, mark: str, **spec: object) -> dict[str, object]:
    env = [*container()["env"], {"name": "MARK", "value": mark}]
    return inference_server(name, namespace, template={"spec": {"containers": [container(env=env)]}}, **spec)


def settled(cluster: Cluster, namespace: str) -> bool:
    """Whether the InferenceServer's status describes its newest generation."""
    found = cluster.get("isvr", "one", "-n", namespace)
    return bool(found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])


async def test_rollout_undo_stands_though_the_replica_count_changes_later(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(marked("one", namespace, "first"))
    await agent.until(lambda: deployment(installed, namespace))
    installed.apply(marked("one", namespace, "second"))
    await agent.until(lambda: marker(installed, namespace) == "second")
    installed.kubectl("rollout", "status", "deployment/one", "-n", namespace, "--timeout=60s")
    installed.kubectl("rollout", "undo", "deployment/one", "-n", namespace)
    await agent.until(lambda: "TemplateDrift" in conditions(installed, "one", namespace))
    installed.kubectl("patch", "isvr", "one", "-n", namespace, "--type=merge", '-p={"spec":{"replicas":2}}')
    await agent.until(lambda: deployment(installed, namespace)["spec"]["replicas"] == 2)  # type: ignore[index]
    assert marker(installed, namespace) == "first"


async def test_a_changed_template_replaces_all_that_was_done_by_hand(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(marked("one", namespace, "first"))
    await agent.until(lambda: deployment(installed, namespace))
    installed.kubectl("set", "env", "deployment/one", "-n", namespace, "BY_HAND=yes")
    await agent.until(lambda: "TemplateDrift" in conditions(installed, "one", namespace))
    installed.apply(marked("one", namespace, "second"))
    await agent.until(lambda: marker(installed, namespace) == "second")
    await agent.until(lambda: "TemplateDrift" not in conditions(installed, "one", namespace))
    assert "BY_HAND" not in str(deployment(installed, namespace)["spec"])


async def test_rollout_restart_stands_and_is_no_drift(installed: Cluster, namespace: str, agent: AgentProcess) -> None:
    installed.apply(marked("one", namespace, "first", replicas=0))
    await agent.until(lambda: deployment(installed, namespace))
    installed.kubectl("rollout", "restart", "deployment/one", "-n", namespace)
    installed.kubectl("patch", "isvr", "one", "-n", namespace, "--type=merge", '-p={"spec":{"capacity":5}}')
    await agent.until(lambda: settled(installed, namespace))
    template = deployment(installed, namespace)["spec"]["template"]  # type: ignore[index]
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]
    assert "TemplateDrift" not in conditions(installed, "one", namespace)


async def test_a_deployment_scaled_by_hand_is_brought_back(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, replicas=1))
    await agent.until(lambda: deployment(installed, namespace))
    installed.kubectl("scale", "deployment/one", "-n", namespace, "--replicas=4")
    await agent.until(lambda: deployment(installed, namespace)["spec"]["replicas"] == 1, seconds=10)  # type: ignore[index]


async def test_a_deleted_deployment_is_made_again(installed: Cluster, namespace: str, agent: AgentProcess) -> None:
    installed.apply(inference_server("one", namespace, replicas=0))
    await agent.until(lambda: deployment(installed, namespace))
    before = deployment(installed, namespace)["metadata"]["uid"]  # type: ignore[index]
    installed.kubectl("delete", "deployment", "one", "-n", namespace)
    await agent.until(lambda: (deployment(installed, namespace).get("metadata") or {}).get("uid", before) != before)  # type: ignore[attr-defined]


async def test_a_template_that_the_api_server_refuses_is_a_condition_with_the_field(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    broken = {"spec": {"containers": [container(imagePullPolicy="Sometimes")]}}
    installed.apply(inference_server("one", namespace, template=broken))
    await agent.until(lambda: conditions(installed, "one", namespace).get("Degraded", {}).get("status") == "True")
    degraded = conditions(installed, "one", namespace)["Degraded"]
    assert degraded["reason"] == "InvalidTemplate"
    assert "spec.template.spec.containers[0].imagePullPolicy" in degraded["message"]
    assert conditions(installed, "one", namespace)["Progressing"]["reason"] == "InvalidTemplate"
    installed.apply(inference_server("one", namespace))
    await agent.until(lambda: conditions(installed, "one", namespace)["Degraded"]["status"] == "False")


async def test_a_misspelt_field_of_the_template_is_told_and_not_dropped(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, template={"spec": {"containers": [container(imagee="x")]}}))
    await agent.until(
        lambda: "imagee" in conditions(installed, "one", namespace).get("Degraded", {}).get("message", "")
    )


async def test_a_deployment_of_the_same_name_is_never_adopted(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.kubectl("create", "deployment", "one", "--image=x", "--replicas=0", "-n", namespace)
    installed.apply(inference_server("one", namespace))
    await agent.until(lambda: conditions(installed, "one", namespace).get("Degraded", {}).get("reason") == "NameTaken")
    assert "ownerReferences" not in deployment(installed, namespace)["metadata"]  # type: ignore[operator]
    installed.kubectl("delete", "deployment", "one", "-n", namespace)
    installed.kubectl("annotate", "isvr", "one", "-n", namespace, "look=again")
    await agent.until(lambda: conditions(installed, "one", namespace)["Degraded"]["status"] == "False")


async def test_the_idlest_pod_goes_when_replicas_shrink(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.apply(inference_server("one", namespace, replicas=3))
    key = f"{namespace}/one"
    await agent.until(lambda: len([spec for spec in agent.of(key) if spec.ready]) == 3)
    idlest = min(agent.of(key), key=lambda spec: spec.created_at)
    reports = tuple(
        EndpointReport(spec.uid, key, EndpointState.READY, 0 if spec.uid == idlest.uid else 9, gate_seen=False)
        for spec in agent.of(key)
    )
    agent.desire(endpoints=reports)
    installed.kubectl("scale", "isvr/one", "-n", namespace, "--replicas=2")
    await agent.until(lambda: [spec for spec in agent.of(key) if spec.deletion])
    gone = [spec for spec in agent.of(key) if spec.deletion]
    assert [spec.uid for spec in gone] == [idlest.uid]
    assert gone[0].deletion is not None
    assert gone[0].deletion.reason is DrainReason.SCALE_DOWN


async def test_a_newer_release_of_the_operator_restarts_nothing(installed: Cluster, namespace: str) -> None:
    gated = inference_server("one", namespace, replicas=0, drain={"gate": "Sidecar"})
    async with AgentProcess(installed, watch_namespaces=namespace, gate_image="gate:1", **QUICK) as old:
        await old.leading()
        installed.apply(gated)
        await old.until(lambda: deployment(installed, namespace))
    async with AgentProcess(installed, watch_namespaces=namespace, gate_image="gate:2", **QUICK) as new:
        await new.leading()
        await new.until(lambda: "GateOutdated" in conditions(installed, "one", namespace))
        assert deployment(installed, namespace)["metadata"]["generation"] == 1  # type: ignore[index]
        installed.apply(marked("one", namespace, "new", replicas=0, drain={"gate": "Sidecar"}))
        await new.until(lambda: "gate:2" in str(deployment(installed, namespace)["spec"]))
        await new.until(lambda: "GateOutdated" not in conditions(installed, "one", namespace))


NO_BUDGET = [{"op": "remove", "path": "/spec/disruptionBudget"}]


def budget(cluster: Cluster, namespace: str) -> dict[str, object]:
    """Return the spec of the budget, empty when there is none."""
    found: dict[str, object] = cluster.get("pdb", "one", "-n", namespace).get("spec", {})
    return found


def degraded(cluster: Cluster, namespace: str, name: str) -> str:
    """Return the reason of the condition Degraded, empty without one."""
    return str(conditions(cluster, name, namespace).get("Degraded", {}).get("reason", ""))


async def test_a_disruption_budget_is_kept_as_long_as_it_is_asked_for_and_somebody_elses_is_left_alone(
    installed: Cluster, namespace: str, agent: AgentProcess
) -> None:
    installed.kubectl("create", "pdb", "taken", "-n", namespace, "--selector=app=theirs", "--min-available=7")
    installed.apply(inference_server("taken", namespace, replicas=0, disruptionBudget={"maxUnavailable": 1}))
    installed.apply(inference_server("one", namespace, replicas=0, disruptionBudget={"maxUnavailable": 1}))
    await agent.until(lambda: budget(installed, namespace).get("maxUnavailable") == 1)
    installed.apply(inference_server("one", namespace, replicas=0, disruptionBudget={"minAvailable": "50%"}))
    await agent.until(lambda: budget(installed, namespace).get("minAvailable") == "50%")
    assert "maxUnavailable" not in budget(installed, namespace)
    installed.kubectl("delete", "pdb", "one", "-n", namespace)
    await agent.until(lambda: budget(installed, namespace))
    installed.kubectl("patch", "isvr", "one", "-n", namespace, "--type=json", f"-p={json.dumps(NO_BUDGET)}")
    await agent.until(lambda: not budget(installed, namespace))
    await agent.until(lambda: degraded(installed, namespace, "taken") == "BudgetNameTaken")
    await agent.until(lambda: degraded(installed, namespace, "one") == "AsExpected")
    assert installed.get("pdb", "taken", "-n", namespace)["spec"]["minAvailable"] == 7
