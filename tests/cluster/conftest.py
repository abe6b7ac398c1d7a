"""What every cluster test shares."""

from tests.cluster.fixtures import cluster, embedded, namespace, pods

__all__ = ["cluster", "embedded", "namespace", "pods"]
