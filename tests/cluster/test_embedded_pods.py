"""The stand-in kubelet runs pods as the real one does: addresses, probes, restarts, configuration."""

import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.pods import Pods

pytestmark = pytest.mark.cluster


def test_nodes_carry_the_labels_of_their_gpus(cluster: Cluster, embedded: EmbeddedCluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.get("nodes")["items"]}
    assert nodes["h100-0"]["metadata"]["labels"]["nvidia.com/gpu.memory"] == "81559"
    assert nodes["t4-0"]["metadata"]["labels"]["nvidia.com/gpu.product"] == "Tesla-T4"
    assert nodes["h100-1"]["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu" not in nodes["cpu-0"]["status"]["allocatable"]


def test_every_pod_becomes_ready_at_an_address_of_its_own(pods: Pods) -> None:
    pods.server("one")
    pods.server("two")
    addresses = {pods.ready(name)["status"]["podIP"] for name in ("one", "two")}
    assert len(addresses) == 2
    assert all(address.startswith("127.") for address in addresses)


def test_an_address_is_not_given_again_after_its_pod_is_gone(pods: Pods) -> None:
    pods.server("one")
    before = pods.ready("one")["status"]["podIP"]
    pods.delete("one")
    pods.server("one")
    assert pods.ready("one")["status"]["podIP"] != before


def test_a_pod_is_ready_only_while_its_readiness_probe_passes(pods: Pods) -> None:
    pods.server("one", readinessProbe={"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 1})
    pods.wait("one", lambda pod: pods.container(pod)["started"])
    pods.call("one", "/set?ready=no")
    pods.wait("one", lambda pod: not pods.container(pod)["ready"])
    pods.call("one", "/set?ready=yes")
    assert pods.ready("one")


def test_a_container_that_ends_is_started_again_and_says_how_it_ended(pods: Pods) -> None:
    pods.server("one")
    address = pods.ready("one")["status"]["podIP"]
    pods.call("one", "/exit?code=7")
    pod = pods.wait("one", lambda pod: pods.container(pod)["restartCount"] == 1 and "running" in pods.state(pod))
    assert pods.container(pod)["lastState"]["terminated"]["exitCode"] == 7
    assert pod["status"]["podIP"] == address
