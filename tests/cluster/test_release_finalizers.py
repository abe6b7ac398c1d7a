"""The way out without an operator, on a real API server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.app.programs import tailrace
from tests.cluster.clusters import Cluster

pytestmark = pytest.mark.cluster

OURS, FOREIGN = "tailrace.dev/drain", "example.com/audit"
POD = {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]}


class Pods:
    """Pods that nobody runs, in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def create(self, name: str, *finalizers: str, deleted: bool = False) -> None:
        """Create a pod with finalizers, and delete it if asked to: then it waits for them."""
        metadata = {"name": name, "namespace": self.namespace, "finalizers": finalizers}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": POD})
        if deleted:
            self.cluster.kubectl("delete", "pod", name, "-n", self.namespace, "--wait=false")

    def finalizers(self, name: str) -> list[str] | None:
        """Return the pod's finalizers, None when it is gone."""
        pod = self.cluster.get("pod", name, "-n", self.namespace)
        return list(pod["metadata"].get("finalizers", ())) if pod else None

    def forget(self) -> None:
        """Take every finalizer off, so that the namespace can go."""
        for pod in self.cluster.get("pods", "-n", self.namespace)["items"]:
            patch = ("--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
            self.cluster.kubectl("patch", "pod", pod["metadata"]["name"], "-n", self.namespace, *patch, check=False)


@pytest.fixture
def some(cluster: Cluster, namespace: str) -> Iterator[Pods]:
    """Yield pods of four kinds."""
    pods = Pods(cluster, namespace)
    pods.create("living", OURS)
    pods.create("stuck", OURS, deleted=True)
    pods.create("shared", FOREIGN, OURS, deleted=True)
    pods.create("foreign", FOREIGN)
    yield pods
    pods.forget()


def release(pods: Pods, *options: str, kubeconfig: Path | None = None) -> tuple[int, list[str], str]:
    """Run the command in the namespace of the pods; return exit code, sorted lines, standard error."""
    access = ("--kubeconfig", str(kubeconfig or pods.cluster.kubeconfig))
    code, output, errors = tailrace("release-finalizers", "-n", pods.namespace, *access, *options)
    return code, sorted(line.replace(f"{pods.namespace}/", "") for line in output.splitlines()), errors


def test_our_finalizer_is_taken_off_and_no_other(some: Pods) -> None:
    assert release(some) == (0, ["released living", "released shared", "released stuck"], "")
    assert some.finalizers("living") == []
    assert some.finalizers("stuck") is None
    assert some.finalizers("shared") == [FOREIGN]
    assert some.finalizers("foreign") == [FOREIGN]


def test_a_dry_run_says_what_would_be_released_and_changes_nothing(some: Pods) -> None:
    would = ["would release living", "would release shared", "would release stuck"]
    assert release(some, "--dry-run") == (0, would, "")
    assert some.finalizers("living") == some.finalizers("stuck") == [OURS]
    assert some.finalizers("shared") == [FOREIGN, OURS]


def test_only_what_is_being_deleted_may_be_released(some: Pods) -> None:
    assert release(some, "--terminating") == (0, ["released shared", "released stuck"], "")
    assert some.finalizers("living") == [OURS]


def test_running_it_again_finds_nothing_to_do(some: Pods) -> None:
    release(some)
    assert release(some) == (0, [f"nothing to release: no pod holds the finalizer {OURS}"], "")


def test_without_a_namespace_every_one_is_looked_at(some: Pods) -> None:
    code, output, _ = tailrace("release-finalizers", "--dry-run", env={"KUBECONFIG": str(some.cluster.kubeconfig)})
    assert code == 0
    assert f"would release {some.namespace}/living" in output.splitlines()


def test_several_namespaces_may_be_named_and_others_are_left_alone(some: Pods) -> None:
    access = ("--kubeconfig", str(some.cluster.kubeconfig))
    code, output, _ = tailrace("release-finalizers", "-n", "default", "-n", "kube-system", *access)
    assert (code, output) == (0, f"nothing to release: no pod holds the finalizer {OURS}\n")
    assert some.finalizers("living") == [OURS]


def test_who_may_not_list_pods_is_told_so(some: Pods) -> None:
    nobody = some.cluster.bearer_kubeconfig(service_account=f"{some.namespace}/default")
    code, _, errors = release(some, kubeconfig=nobody)
    assert code == 2
    assert "403 Forbidden" in errors
    assert "cannot list resource" in errors


def test_pods_that_cannot_be_released_are_named_with_the_reason(some: Pods) -> None:
    where = ("-n", some.namespace)
    some.cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods", *where)
    account = f"--serviceaccount={some.namespace}:default"
    some.cluster.kubectl("create", "rolebinding", "reader", "--role=reader", account, *where)
    reader = some.cluster.bearer_kubeconfig(service_account=f"{some.namespace}/default")
    code, output, errors = release(some, kubeconfig=reader)
    assert (code, output) == (1, [])
    assert [line.partition(": ")[0] for line in sorted(errors.splitlines())] == [
        f"not released {some.namespace}/{name}" for name in ("living", "shared", "stuck")
    ]
    assert "cannot patch resource" in errors


def test_a_cluster_that_is_not_there_is_told_so(some: Pods, tmp_path: Path) -> None:
    away = tmp_path / "kubeconfig"
    away.write_text(some.cluster.kubeconfig.read_text().replace(some.cluster.server, "https://127.0.0.1:1"))
    code, output, errors = release(some, kubeconfig=away)
    assert (code, output) == (2, [])
    assert errors.startswith("cannot reach the cluster: the API server ")


# status, which asks in the same way


SERVER = {
    "apiVersion": "inference.tailrace.dev/v1alpha1",
    "kind": "InferenceServer",
    "spec": {"models": [{"name": "demo"}, {"name": "other"}], "endpoints": [{"address": "10.0.0.7:8000"}]},
}


def test_status_shows_the_inference_servers_of_a_cluster(installed: Cluster, namespace: str) -> None:
    installed.apply(SERVER | {"metadata": {"name": "llama", "namespace": namespace}})
    access = ("-n", namespace, "--kubeconfig", str(installed.kubeconfig))
    code, text, _ = tailrace("status", "--json", *access)
    (row,) = json.loads(text)
    assert code == 0
    assert (row["namespace"], row["name"], row["models"]) == (namespace, "llama", "demo, other")
    assert row["message"] == "no operator has looked at it yet"
    _, table, _ = tailrace("status", *access)
    assert table.splitlines()[0].split()[:3] == ["NAMESPACE", "NAME", "MODELS"]
    assert table.splitlines()[1].split()[:2] == [namespace, "llama"]
