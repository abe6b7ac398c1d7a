"""Two agents: one leads, the other takes over; both always watch. And what an agent may not do."""

import asyncio
import signal
import time

import pytest
from tests.cluster.agent_fixtures import QUICK, agent, inference_server, installed
from tests.cluster.agents import ACCOUNT, AgentProcess, install
from tests.cluster.clusters import Cluster
from tests.cluster.embedded import EmbeddedCluster

pytestmark = pytest.mark.cluster
__all__ = ["agent", "installed"]


def pair(cluster: Cluster, namespace: str) -> tuple[AgentProcess, AgentProcess]:
    first, second = (
        AgentProcess(cluster, name, watch_namespaces=namespace, **QUICK) for name in ("agent-0", "agent-1")
    )
    return first, second


async def test_the_standby_leads_at_once_when_the_leader_leaves_in_order(installed: Cluster, namespace: str) -> None:
    first, second = pair(installed, namespace)
    async with first, second:
        await first.until(lambda: any(each.health and each.health.leader for each in (first, second)))
        leader, standby = (first, second) if first.health and first.health.leader else (second, first)
        assert leader.process is not None
        leader.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(leader.process.wait(), 10) == 0
        began = time.monotonic()
        await standby.leading()
        assert time.monotonic() - began < QUICK["lease_seconds"]


async def test_the_standby_leads_when_the_leader_is_killed_and_goes_on_with_its_work(
    installed: Cluster, namespace: str
) -> None:
    first, second = pair(installed, namespace)
    async with first, second:
        await first.until(lambda: any(each.health and each.health.leader for each in (first, second)))
        leader, standby = (first, second) if first.health and first.health.leader else (second, first)
        assert leader.process is not None
        leader.process.kill()
        installed.apply(inference_server("one", namespace))
        await standby.until(lambda: [spec for spec in standby.of(f"{namespace}/one") if spec.ready])
        assert standby.health is not None
        assert standby.health.leader


async def test_an_agent_ends_with_its_parent(installed: Cluster, namespace: str, agent: AgentProcess) -> None:
    assert agent.process is not None
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert await asyncio.wait_for(agent.process.wait(), 10) == 0


async def test_a_standby_writes_nothing(installed: Cluster, namespace: str, agent: AgentProcess) -> None:
    async with AgentProcess(installed, "agent-1", watch_namespaces=namespace, **QUICK) as standby:
        await standby.until(lambda: standby.snapshots and standby.health and standby.health.holder)
        assert agent.process is not None
        agent.process.send_signal(signal.SIGSTOP)
        try:
            installed.apply(inference_server("one", namespace))
            await standby.until(lambda: f"{namespace}/one" in standby.servers)
            if standby.health is not None and not standby.health.leader:
                assert installed.get("deployment", "one", "-n", namespace) == {}
            await standby.leading()
            await standby.until(lambda: installed.get("deployment", "one", "-n", namespace))
        finally:
            agent.process.send_signal(signal.SIGCONT)
        await agent.until(lambda: agent.health is not None and not agent.health.leader)


async def test_an_outage_of_the_api_server_empties_nothing(embedded: EmbeddedCluster, namespace: str) -> None:

    install(embedded)
    embedded.apply(inference_server("one", namespace))
    async with AgentProcess(embedded, watch_namespaces=namespace, **QUICK) as process:
        await process.until(lambda: [spec for spec in process.of(f"{namespace}/one") if spec.ready])
        server = embedded.control_plane.process("kube-apiserver")
        server.pause()
        try:
            await process.until(lambda: process.health is not None and not process.health.leader)
            await asyncio.sleep(2)
            assert [spec for spec in process.of(f"{namespace}/one") if spec.ready]
        finally:
            server.resume()
        await process.leading()
        await process.until(lambda: process.health is not None and not process.health.api_error)


async def test_the_bearer_of_a_token_is_known(installed: Cluster, namespace: str, agent: AgentProcess) -> None:
    token = installed.service_account_token(f"{namespace}/default", audience="tailrace")
    seen = await agent.review(token, audience="tailrace")
    assert (seen.authenticated, seen.user) == (True, f"system:serviceaccount:{namespace}:default")
    assert not (await agent.review(token, audience="another")).authenticated
    assert not (await agent.review("no-token")).authenticated
    plain = installed.service_account_token(f"{namespace}/default")
    assert not (await agent.review(plain, verb="update", namespace=namespace)).allowed
    installed.kubectl(
        "create",
        "rolebinding",
        "e",
        "--clusterrole=tailrace-edit",
        f"--serviceaccount={namespace}:default",
        "-n",
        namespace,
    )
    await asyncio.sleep(0.5)
    assert (await agent.review(plain, verb="update", namespace=namespace)).allowed


async def test_without_a_right_to_nodes_all_else_is_still_watched(installed: Cluster, namespace: str) -> None:
    """Who may only serve one namespace has no GPU memory from labels, and loses nothing else."""
    role = installed.get("clusterrole", "tailrace")
    rules = [rule for rule in role["rules"] if "nodes" not in rule["resources"]]
    meta = {"name": "narrow", "namespace": namespace}
    account = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "narrow"}
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
    common = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
    installed.apply(
        common | {"kind": "Role", "rules": [*rules, lease]},
        common | {"kind": "RoleBinding", "roleRef": reference, "subjects": [account]},
    )
    narrow = {
        "kubeconfig": installed.bearer_kubeconfig(service_account=f"{namespace}/default"),
        "namespace": namespace,
        "watch_namespaces": namespace,
    }
    async with AgentProcess(installed, **QUICK | {"resync_seconds": 600} | narrow) as process:
        await process.leading()
        await process.until(lambda: process.snapshots)
        installed.apply(inference_server("one", namespace))
        await process.until(lambda: [spec for spec in process.of(f"{namespace}/one") if spec.ready])


@pytest.mark.parametrize(
    "what",
    [
        "get secrets",
        "delete pods",
        "create pods",
        "delete deployments",
        "update inferenceservers",
        "delete leases",
        "get configmaps",
    ],
)
def test_the_operator_may_not(installed: Cluster, what: str) -> None:
    account = f"system:serviceaccount:{ACCOUNT.replace('/', ':')}"
    answer = installed.kubectl("auth", "can-i", *what.split(), f"--as={account}", "-A", check=False)
    assert answer.stdout.strip() == "no"
