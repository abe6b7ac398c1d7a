"""Controllers at work on the embedded cluster's nodes, and pods while a part of the cluster is away."""

import pytest
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.pods import Pods, ask, condition, server_container, shell_container

pytestmark = pytest.mark.cluster

LABELS = {"app": "web"}


def deployment(pods: Pods, replicas: int) -> None:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [server_container()]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    metadata = {"name": "web", "namespace": pods.namespace}
    pods.cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    pods.kubectl("rollout", "status", "deployment/web", "--timeout=60s")


def test_a_deployment_is_rolled_out_and_replaced_pod_by_pod(pods: Pods) -> None:
    deployment(pods, 2)
    before = {pod["metadata"]["uid"] for pod in pods.all()}
    pods.kubectl("rollout", "restart", "deployment/web")
    pods.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    ready = {pod["metadata"]["uid"] for pod in pods.all() if "deletionTimestamp" not in pod["metadata"]}
    assert len(ready) == 2
    assert not ready & before


def test_a_container_that_keeps_failing_waits_longer_and_longer(pods: Pods) -> None:
    pods.create("one", containers=[shell_container("main", "exit 1")])
    pod = pods.wait("one", lambda pod: pods.state(pod)["waiting"]["reason"] == "CrashLoopBackOff")
    assert pods.container(pod)["lastState"]["terminated"]["exitCode"] == 1
    assert condition(pod, "Ready") == "False"


def test_pods_run_anew_after_their_kubelet_was_away(pods: Pods, embedded: EmbeddedCluster) -> None:
    pods.server("one")
    before = pods.ready("one")
    embedded.kubelet.restart()
    after = pods.wait("one", lambda pod: pods.container(pod)["restartCount"] == 1 and condition(pod, "Ready") == "True")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["podIP"] != before["status"]["podIP"]


def test_containers_are_restarted_while_the_api_server_is_away(pods: Pods, embedded: EmbeddedCluster) -> None:
    pods.server("one")
    address = pods.ready("one")["status"]["podIP"]
    server = embedded.control_plane.process("kube-apiserver")
    server.kill()
    try:
        ask(address, "/exit?code=3")
        pods.wait_said("one", "started", times=2)
    finally:
        server.start()
    pods.wait("one", lambda pod: pods.container(pod)["restartCount"] == 1)
    assert pods.ready("one")["status"]["podIP"] == address


def test_a_delete_is_carried_out_when_the_api_server_is_back(pods: Pods, embedded: EmbeddedCluster) -> None:
    pods.server("one", lifecycle={"preStop": {"sleep": {"seconds": 2}}})
    pods.ready("one")
    pods.delete("one", wait=False)
    server = embedded.control_plane.process("kube-apiserver")
    server.pause()
    try:
        pods.wait_said("one", "sigterm")
    finally:
        server.resume()
    pods.gone("one")


def test_a_node_whose_kubelet_is_away_becomes_not_ready(embedded: EmbeddedCluster) -> None:
    embedded.kubelet.process.kill()
    try:
        embedded.kubectl("wait", "node/cpu-0", "--for=condition=Ready=Unknown", "--timeout=40s")
    finally:
        embedded.kubelet.restart()
    embedded.kubectl("wait", "node/cpu-0", "--for=condition=Ready=True", "--timeout=40s")
