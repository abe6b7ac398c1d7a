"""The life of a release on a cluster: definition, operator, an adopted pod, and what is left after the uninstall."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.charts.helm import CHART, CRD_CHART, Helm
from tests.cluster.clusters import Cluster
from tests.cluster.embedded import EmbeddedCluster

from tailrace.api import names

pytestmark = pytest.mark.cluster

FOREIGN = "example.com/keep"
VALUES = {
    "image": {"repository": "tailrace", "tag": "test"},
    # The stand-in kubelet mounts no account and gives every pod a loopback address.
    "extraEnv": [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "TAILRACE_KUBECONFIG", "value": "/etc/tailrace/kubeconfig"},
        {"name": "TAILRACE_PEER_TOKEN_FILE", "value": "/var/run/secrets/tailrace/token"},
    ],
    "extraVolumes": [{"name": "kubeconfig", "secret": {"secretName": "kubeconfig"}}],
    "extraVolumeMounts": [{"name": "kubeconfig", "mountPath": "/etc/tailrace"}],
    "settings": {"host": "$(POD_IP)", "settleSeconds": 0},
}


@pytest.fixture
def crds(helm: Helm, embedded: EmbeddedCluster, namespace: str) -> str:
    """Install the chart of the definition, over what other tests may have applied."""
    flags = ("--namespace", namespace, "--kubeconfig", embedded.kubeconfig, "--take-ownership", "--wait")
    helm.run("upgrade", "--install", "crds", CRD_CHART, *flags)
    embedded.kubectl("wait", "--for=condition=Established", f"crd/{names.CRD_NAME}")
    return names.CRD_NAME


@pytest.fixture
def release(
    helm: Helm, embedded: EmbeddedCluster, namespace: str, crds: str, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Return a way to run helm on a release of the chart that serves the test's namespace; it is gone afterwards."""
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES | {"watchNamespaces": [namespace]}))
    where = ("--namespace", namespace, "--kubeconfig", embedded.kubeconfig)

    def run(verb: str, *args: str) -> str:
        chart: tuple[str | Path, ...] = () if verb == "uninstall" else (CHART, "--values", values)
        return helm.run(verb, "tailrace", *chart, *where, *args)

    yield run
    helm.run("uninstall", "tailrace", *where, "--ignore-not-found", "--no-hooks")
    helm.run("uninstall", "crds", *where, "--ignore-not-found")


def give_credentials(cluster: Cluster, namespace: str) -> None:
    """Put a kubeconfig of the release's own account where its pod mounts it."""
    path = cluster.bearer_kubeconfig(service_account=f"{namespace}/tailrace")
    cluster.kubectl("create", "secret", "generic", "kubeconfig", "-n", namespace, f"--from-file=kubeconfig={path}")


def selected_pod(name: str, namespace: str) -> dict[str, Any]:
    container = {"name": "engine", "image": "busybox", "command": ["sleep", "3600"]}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "mine"}, "finalizers": [FOREIGN]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def server(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "adopted", "namespace": namespace},
        "spec": {"models": [{"name": "m"}], "selector": {"matchLabels": {"app": "mine"}}},
    }


def finalizers(cluster: Cluster, namespace: str, pod: str) -> list[str]:
    found: list[str] = cluster.get("pod", pod, "-n", namespace)["metadata"].get("finalizers", [])
    return found


def labelled(cluster: Cluster, namespace: str, kinds: str, label: str) -> list[str]:
    """Return the names of the objects of these kinds that carry the label."""
    found = cluster.get(kinds, "-l", label, "-n", namespace).get("items", [])
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found]


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.1)


def test_a_release_serves_upgrades_and_leaves_no_finalizer_of_ours(
    embedded: EmbeddedCluster, namespace: str, release: Callable[..., str]
) -> None:
    release("install")
    give_credentials(embedded, namespace)
    embedded.kubectl("rollout", "status", "deployment/tailrace", "-n", namespace, "--timeout=60s")
    embedded.apply(selected_pod("mine", namespace), server(namespace))
    until(lambda: names.FINALIZER in finalizers(embedded, namespace, "mine"))

    release("upgrade", "--wait", "--set", "podAnnotations.example\\.com/changed=yes")
    assert names.FINALIZER in finalizers(embedded, namespace, "mine")

    release("uninstall")
    assert finalizers(embedded, namespace, "mine") == [FOREIGN]
    until(lambda: not labelled(embedded, namespace, "pod", "app.kubernetes.io/name=tailrace"))
    assert finalizers(embedded, namespace, "mine") == [FOREIGN]
    assert labelled(embedded, namespace, "all,role,rolebinding,serviceaccount,pdb", "helm.sh/chart") == []
    embedded.kubectl("patch", "pod", "mine", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_the_pods_of_a_release_agree_and_one_that_is_gone_is_not_waited_for(
    embedded: EmbeddedCluster, namespace: str, release: Callable[..., str]
) -> None:
    release("install")
    give_credentials(embedded, namespace)
    embedded.kubectl("rollout", "status", "deployment/tailrace", "-n", namespace, "--timeout=60s")
    # Nobody can ask this engine, so that what a replica that dies may have sent there is unknown for so long.
    timeouts = {"connectSeconds": 1, "firstByteSeconds": 3, "idleSeconds": 3, "totalSeconds": 4}
    described = server(namespace)
    described["spec"] |= {"timeouts": timeouts, "drain": {"timeoutSeconds": 60, "settleSeconds": 0}}
    embedded.apply(selected_pod("mine", namespace), described)
    replicas = routers(embedded, namespace)
    assert len(replicas) == 2
    assert {refusal(address) for address in replicas.values()} == {401}, "replicas must look at tokens"
    for address in replicas.values():
        until(lambda address=address: standing(address)["state"] == "ready")  # type: ignore[misc]

    cordon(embedded, namespace, "true")
    for address in replicas.values():
        until(lambda address=address: standing(address)["safe_to_delete"])  # type: ignore[misc]
    cordon(embedded, namespace, None)
    for address in replicas.values():
        until(lambda address=address: standing(address)["state"] == "ready")  # type: ignore[misc]

    killed, survivor = sorted(replicas)
    embedded.kubectl("delete", "pod", killed, "-n", namespace, "--force", "--grace-period=0")
    cordon(embedded, namespace, "true")
    until(lambda: standing(replicas[survivor])["safe_to_delete"])
    assert killed not in routers(embedded, namespace)
    embedded.kubectl("delete", "isvr/adopted", "pod/mine", "-n", namespace, "--wait=false")
    embedded.kubectl("patch", "pod", "mine", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def routers(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the replicas' admin addresses by the names of their pods."""
    pods = cluster.get("pods", "-l", "app.kubernetes.io/component=operator", "-n", namespace)["items"]
    return {pod["metadata"]["name"]: f"{pod['status'].get('podIP')}:9090" for pod in pods}


def standing(router: str) -> dict[str, Any]:
    """Return how the pod's drain stands at this replica; nothing of it while it knows no such pod."""
    try:
        with urllib.request.urlopen(f"http://{router}/wait-for-drain?pod=mine&timeout=0", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        error.close()
        return {"state": None, "safe_to_delete": False}


def refusal(router: str) -> int:
    """Return the status of a call that only replicas may make, made without a token."""
    try:
        urllib.request.urlopen(f"http://{router}/peer/drains", data=b"{}", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def cordon(cluster: Cluster, namespace: str, mark: str | None) -> None:
    """Drain the pod by hand, or no more, in the way of people."""
    body = {"metadata": {"annotations": {names.ANNOTATION_DRAINING: mark}}}
    cluster.kubectl("patch", "pod", "mine", "-n", namespace, "--type=merge", "-p", json.dumps(body))


def test_an_upgrade_keeps_the_certificate_of_the_webhook(
    embedded: EmbeddedCluster, namespace: str, release: Callable[..., str]
) -> None:
    def trusted() -> tuple[dict[str, str], str]:
        name = f"{namespace}-tailrace"
        (webhook,) = embedded.get("mutatingwebhookconfiguration", name)["webhooks"]
        return embedded.get("secret", "tailrace-webhook", "-n", namespace)["data"], webhook["clientConfig"]["caBundle"]

    settings = ("--set", "webhook.enabled=true", "--set", "replicaCount=0")
    release("install", *settings)
    data, authority = trusted()
    assert data["ca.crt"] == authority
    release("upgrade", *settings, "--set", "webhook.timeoutSeconds=1")
    assert trusted() == (data, authority)


def test_the_definition_and_its_resources_outlive_their_chart(
    helm: Helm, embedded: EmbeddedCluster, namespace: str, crds: str
) -> None:
    embedded.apply(server(namespace))
    helm.run("uninstall", "crds", "--namespace", namespace, "--kubeconfig", embedded.kubeconfig)
    assert embedded.get("crd", crds)
    assert embedded.get("isvr", "adopted", "-n", namespace)
