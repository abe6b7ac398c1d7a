"""What a container of the embedded cluster gets from its pod: variables, volumes, tokens, an order of starts."""

import json
import os
from typing import Any

import pytest
from tests.cluster.clusters import Cluster
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.pods import Pods, server_container, shell_container

pytestmark = pytest.mark.cluster


def run(pods: Pods, container: dict[str, Any], **spec: object) -> str:
    pods.create("one", containers=[container], restartPolicy="Never", **spec)
    pods.wait("one", lambda pod: pod["status"]["phase"] == "Succeeded")
    return pods.log("one", container["name"])


def token_volume(audience: str) -> dict[str, Any]:
    source = {"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 600}}
    return {"name": "identity", "projected": {"sources": [source]}}


def test_variables_come_from_the_pod_from_config_maps_and_from_each_other(pods: Pods) -> None:
    pods.kubectl("create", "configmap", "settings", "--from-literal=COLOUR=green")
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOUR"}}},
        {"name": "BOTH", "value": "$(POD)-$(COLOUR)-$(UNKNOWN)-$$(POD)"},
    ]
    assert run(pods, shell_container("main", 'echo "$BOTH"', env=env)).strip() == "one-green-$(UNKNOWN)-$(POD)"


def test_mount_paths_in_commands_lead_to_the_volumes(pods: Pods) -> None:
    pods.kubectl("create", "configmap", "settings", "--from-literal=greeting=hello")
    pods.kubectl("create", "secret", "generic", "hidden", "--from-literal=word=swordfish")
    mounts = [{"name": "c", "mountPath": "/etc/settings"}, {"name": "s", "mountPath": "/etc/hidden"}]
    volumes = [{"name": "c", "configMap": {"name": "settings"}}, {"name": "s", "secret": {"secretName": "hidden"}}]
    script = "cat /etc/settings/greeting; echo; cat /etc/hidden/word"
    assert run(pods, shell_container("main", script, volumeMounts=mounts), volumes=volumes).split() == [
        "hello",
        "swordfish",
    ]


def test_init_containers_run_one_after_the_other_before_the_main_one_and_share_volumes(pods: Pods) -> None:
    mounts = [{"name": "work", "mountPath": "/shared"}]
    initial = [
        shell_container(name, f"echo {name} >> /shared/order", volumeMounts=mounts) for name in ("first", "second")
    ]
    log = run(
        pods,
        shell_container("main", "cat /shared/order", volumeMounts=mounts),
        initContainers=initial,
        volumes=[{"name": "work", "emptyDir": {}}],
    )
    assert log.split() == ["first", "second"]


def test_the_main_container_waits_for_the_startup_probe_of_a_sidecar(pods: Pods) -> None:
    probe = {"httpGet": {"path": "/ready", "port": 9000}, "periodSeconds": 1}
    sidecar = server_container("side", 9000, restartPolicy="Always", startupProbe=probe)
    pods.create("one", initContainers=[sidecar], containers=[server_container()])
    pods.ready("one")
    assert pods.said("one", "started", "side")[0] < pods.said("one", "started")[0]


def test_a_projected_token_tells_the_api_server_which_pod_presents_it(pods: Pods) -> None:
    mounts = [{"name": "identity", "mountPath": "/var/run/tailrace"}]
    main = shell_container("main", "cat /var/run/tailrace/token; sleep 1000", volumeMounts=mounts)
    pods.create("one", containers=[main], volumes=[token_volume("tailrace")], terminationGracePeriodSeconds=1)
    uid = pods.ready("one")["metadata"]["uid"]
    token = pods.wait_log("one")
    status = review(pods.cluster, token, "tailrace")
    assert status["authenticated"] is True
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]
    assert review(pods.cluster, token, "somebody-else").get("authenticated") is not True


def review(cluster: Cluster, token: str, audience: str) -> dict[str, Any]:
    spec = {"token": token, "audiences": [audience]}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    answer = cluster.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(body)).stdout
    status: dict[str, Any] = json.loads(answer)["status"]
    return status


def test_a_pod_reaches_the_api_server_as_its_own_service_account(pods: Pods, embedded: EmbeddedCluster) -> None:
    kubectl = embedded.kubectl_path
    log = run(pods, shell_container("main", f"{kubectl} auth whoami -o jsonpath='{{.status.userInfo.username}}'"))
    assert log == f"system:serviceaccount:{pods.namespace}:default"


def test_a_bearer_kubeconfig_is_let_in_as_its_service_account_only(cluster: Cluster, namespace: str) -> None:
    path = cluster.bearer_kubeconfig(service_account=f"{namespace}/default")
    said = cluster.kubectl("auth", "whoami", "-o", "json", f"--kubeconfig={path}").stdout
    assert json.loads(said)["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert cluster.kubectl("get", "nodes", f"--kubeconfig={path}", check=False).returncode != 0


def test_a_container_starts_as_soon_as_the_config_map_it_needs_exists(pods: Pods) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    main = shell_container("main", "sleep 1000", env=env)
    pods.create("one", containers=[main], terminationGracePeriodSeconds=1)
    pods.wait("one", lambda pod: "late" in pods.state(pod)["waiting"]["message"])
    pods.kubectl("create", "configmap", "late", "--from-literal=a=b")
    pods.ready("one")


def test_a_pod_on_a_node_of_the_t4_class_asks_for_its_label(pods: Pods) -> None:
    selector = {"nvidia.com/gpu.memory": "15360"}
    pods.create(
        "one", containers=[server_container(resources={"limits": {"nvidia.com/gpu": 1}})], nodeSelector=selector
    )
    assert pods.ready("one")["spec"]["nodeName"] == "t4-0"


def test_processes_do_not_see_the_variables_of_the_test_run(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "PYTEST_CURRENT_TEST" in os.environ
    assert "PYTEST_CURRENT_TEST" not in run(pods, shell_container("main", "env"))
