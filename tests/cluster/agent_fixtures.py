"""What the tests of the agent alone share: an installation without operator, a leading agent, small documents."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.cluster import agents
from tests.cluster.agents import AgentProcess
from tests.cluster.clusters import Cluster
from tests.cluster.pods import server_container

from tailrace.core.model import DrainOutcome, DrainReason, EndpointSpec, Release

QUICK: dict[str, Any] = {"lease_seconds": 3, "lease_renew_seconds": 1, "resync_seconds": 2, "status_seconds": 1}
Document = dict[str, Any]


@pytest.fixture
def installed(cluster: Cluster) -> Cluster:
    """Return the cluster with CRD and rights, but no operator."""
    agents.install(cluster)
    return cluster


@pytest.fixture
async def agent(installed: Cluster, namespace: str) -> AsyncIterator[AgentProcess]:
    """Yield an agent that leads, for the test's namespace only."""
    async with AgentProcess(installed, watch_namespaces=namespace, lease_name="tailrace", **QUICK) as process:
        await process.leading()
        yield process


def container(**fields: object) -> Document:
    """Return a container with a scripted server that takes part in `spec.port`."""
    return server_container(ports=[{"containerPort": 8000}], **fields)  # type: ignore[arg-type]


def inference_server(name: str, namespace: str, **spec: object) -> Document:
    """Return an InferenceServer; without other words it runs scripted servers without a gate."""
    mode = {} if "selector" in spec or "endpoints" in spec else {"template": {"spec": {"containers": [container()]}}}
    said = {"models": [{"name": f"model-{namespace}-{name}"}], "drain": {"gate": "None"}} | mode | spec
    return {
        "apiVersion": "inference.tailrace.dev/v1alpha1",
        "kind": "InferenceServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": said,
    }


def release_of(spec: EndpointSpec, outcome: DrainOutcome = DrainOutcome.DRAINED, lost: int = 0) -> Release:
    """Return the release of an endpoint that is being deleted."""
    assert spec.deletion is not None
    return Release(spec.uid, DrainReason.DELETE, outcome, spec.deletion.started_at, time.time(), 3, 3 - lost, lost)


def conditions(cluster: Cluster, name: str, namespace: str) -> dict[str, Document]:
    """Return the conditions of an InferenceServer by type."""
    status = cluster.get("isvr", name, "-n", namespace).get("status") or {}
    return {condition["type"]: condition for condition in status.get("conditions") or ()}
