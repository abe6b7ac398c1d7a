"""What the fault tests share. Their cluster is one of their own: they pause and kill parts of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.fixtures import cluster, embedded, namespace
from tests.cluster.replica import install
from tests.faults.rig import Rig

__all__ = ["cluster", "embedded", "namespace"]


@pytest.fixture(scope="session")
def installed(embedded: EmbeddedCluster) -> EmbeddedCluster:
    """Return the cluster with the resource, the service account and the shipped RBAC installed."""
    install(embedded)
    return embedded


@pytest.fixture
def rig(installed: EmbeddedCluster, namespace: str) -> Iterator[Rig]:
    """Yield an operator behind a fault proxy."""
    with Rig(installed, namespace) as running:
        yield running
