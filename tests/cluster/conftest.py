"""What every cluster test shares."""

from __future__ import annotations

import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.fixtures import cluster, embedded, namespace, pods
from tests.cluster.replica import install

__all__ = ["cluster", "embedded", "namespace", "pods"]


@pytest.fixture(scope="package")
def installed(cluster: Cluster) -> Cluster:
    """Return the cluster with the resource, the service account and the shipped RBAC installed."""
    install(cluster)
    return cluster
