"""What every cluster test shares."""

from tests.cluster.fixtures import cluster, embedded, namespace

__all__ = ["cluster", "embedded", "namespace"]
