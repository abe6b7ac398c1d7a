import pytest
from tests.kube.documents import pod, server

from tailrace.kube import objects
from tailrace.kube.client import Document, Resource
from tailrace.kube.trim import TRIMS
from tailrace.kube.view import KINDS

NODE: Document = {"metadata": {"name": "n", "uid": "n", "labels": {"a": "b"}}, "spec": {"taints": [{"key": "k"}]}}
EXAMPLES = {objects.PODS: pod("a"), objects.SERVERS: server(), objects.NODES: NODE}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_to_trim_twice_changes_nothing(kind: Resource) -> None:
    once = TRIMS[kind](EXAMPLES.get(kind, server()))
    assert TRIMS[kind](once) == once


def test_what_nobody_reads_is_left_out_of_a_pod() -> None:
    large = pod("a", managedFields=[{"manager": "kubelet"}], annotations={"example.com/large": "x" * 1000})
    large["spec"]["containers"] = [{"name": "main", "env": [{"name": "A", "value": "b"}], "ports": []}]
    kept = TRIMS[objects.PODS](large)
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {}
    assert kept["spec"]["containers"] == [{"name": "main", "ports": []}]
