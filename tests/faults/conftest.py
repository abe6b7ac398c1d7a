"""What the fault tests share. Their cluster is one of their own: parts of it are paused and killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.fixtures import build_tools, namespace
from tests.cluster.replica import install
from tests.faults.rig import Rig

__all__ = ["namespace"]

NODES = Path(__file__).with_name("nodes.yaml")


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Iterator[EmbeddedCluster]:
    """Yield a cluster that hands addresses out again at once, with the resource and the shipped rights installed."""
    if os.environ.get("CLUSTER") == "current":
        pytest.skip("the fault tests pause and kill parts of their own cluster: unset CLUSTER")
    build_tools(request)
    with EmbeddedCluster(nodes=NODES, kubelet_flags=("--reuse-addresses",)) as embedded:
        install(embedded)
        yield embedded
        embedded.keep_files = request.session.testsfailed > 0


@pytest.fixture
def rig(cluster: EmbeddedCluster, namespace: str) -> Iterator[Rig]:
    """Yield an operator behind a fault proxy."""
    with Rig(cluster, namespace) as running:
        yield running
