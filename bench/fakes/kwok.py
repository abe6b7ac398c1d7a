"""Fake nodes: kwok says of the pods on them that they run, so that thousands fit on one machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import tools
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.ports import free_ports
from tests.cluster.processes import ManagedProcess

CONFIGURATION = Path(__file__).with_name("kwok.yaml")
SELECTOR = {"bench.tailrace.dev/fake": "true"}
"""The node selector that brings pods here."""

READY_SECONDS = 30.0


def node(name: str) -> dict[str, Any]:
    """Return a node with the labels of an H100 machine."""
    labels = SELECTOR | {"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    annotations = {"kwok.x-k8s.io/node": "fake"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
    }


@contextmanager
def fake_nodes(cluster: EmbeddedCluster, count: int) -> Iterator[None]:
    """Have so many fake nodes for the time of the block."""
    (port,) = free_ports(1)
    command = [
        str(tools.ensure(["kwok"])["kwok"]),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={CONFIGURATION}",
        f"--server-address=127.0.0.1:{port}",
    ]
    process = ManagedProcess("kwok", command, cluster.workdir / "logs" / "kwok.log")
    try:
        cluster.apply(*(node(f"fake-{number}") for number in range(count)))
        _wait_until_ready(cluster, process, count)
        yield
    finally:
        process.stop()


def _wait_until_ready(cluster: EmbeddedCluster, process: ManagedProcess, count: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while len(_ready(cluster)) < count:
        if time.monotonic() > deadline or not process.alive():
            raise RuntimeError(f"the fake nodes did not become ready:\n{process.tail()}")
        time.sleep(0.2)


def _ready(cluster: EmbeddedCluster) -> list[str]:
    nodes = cluster.get("nodes", "-l", ",".join(f"{key}={value}" for key, value in SELECTOR.items()))["items"]
    return [one["metadata"]["name"] for one in nodes if _is_ready(one)]


def _is_ready(found: dict[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in found.get("status", {}).get("conditions") or ()}
    taints = {one["key"] for one in found["spec"].get("taints") or ()}
    return conditions.get("Ready") == "True" and "node.kubernetes.io/not-ready" not in taints
