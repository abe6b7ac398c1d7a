"""What the operator may change of a pod: its own entries, and nothing else, whatever its rights say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.cluster.agent_fixtures import Document, container, installed
from tests.cluster.agents import ACCOUNT
from tests.cluster.clusters import Cluster
from tests.kube.documents import model

from tailrace.api import names
from tailrace.kube import cordons, costs, finalizers, membership, objects
from tailrace.kube.client import Api, ApiError, PatchType, load
from tailrace.link import Cordon

pytestmark = pytest.mark.cluster
__all__ = ["installed"]

FOREIGN = "example.com/theirs"
SERVER = model(selector={"matchLabels": {"app": "llm"}})


@pytest.fixture
def pod(installed: Cluster, namespace: str) -> Iterator[Document]:
    """Yield a pod that no node takes, with a label, an annotation and a finalizer of somebody else."""
    meta = {
        "name": "a",
        "namespace": namespace,
        "labels": {"app": "other", FOREIGN: "1"},
        "annotations": {FOREIGN: "1"},
        "finalizers": [FOREIGN],
    }
    spec = {"containers": [container()], "nodeSelector": {"there": "none"}}
    installed.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    yield installed.get("pod", "a", "-n", namespace)
    installed.kubectl("patch", "pod", "a", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


@pytest.fixture
async def operator(installed: Cluster, pod: Document) -> AsyncIterator[Api]:
    """Yield the API server as the operator's account reaches it, from when the policy is in force."""
    api = Api(await load(str(installed.bearer_kubeconfig(service_account=ACCOUNT))))
    deadline = time.monotonic() + 30
    while not await refusal(api, pod, {"metadata": {"labels": {"in-force": "yes"}}}):
        assert time.monotonic() < deadline, "the policy does not come into force"
        await asyncio.sleep(0.1)
    yield api
    await api.close()


async def change(api: Api, pod: Document, body: Any, *, dry_run: bool = False) -> Document:  # noqa: ANN401
    """Patch the pod in the way of the operator's code."""
    how = PatchType.JSON if isinstance(body, list) else PatchType.MERGE
    where = (objects.PODS, objects.namespace(pod), objects.name(pod))
    return await api.patch(*where, body, how=how, dry_run=dry_run)


async def refusal(api: Api, pod: Document, body: Any) -> str:  # noqa: ANN401
    """Return why the change is forbidden, empty when it is not."""
    try:
        await change(api, pod, body, dry_run=True)
    except ApiError as error:
        if error.status != 403:  # 422 would be taken for a pod that has changed meanwhile
            raise
        return error.message
    return ""


IMAGE = [{"op": "replace", "path": "/spec/containers/0/image", "value": "evil"}]
REFUSED: dict[str, tuple[Any, str]] = {
    "an image": (IMAGE, "may not change spec of a pod"),
    "a shorter life": ({"spec": {"activeDeadlineSeconds": 1}}, "may not change spec of a pod"),
    "a foreign finalizer less": ({"metadata": {"finalizers": []}}, f"the others were [{FOREIGN}] and would be []"),
    "a foreign finalizer more": (
        {"metadata": {"finalizers": [FOREIGN, names.FINALIZER, "example.com/new"]}},
        f"would be [{FOREIGN}, example.com/new]",
    ),
    "a new label": ({"metadata": {"labels": {"new": "x"}}}, "tailrace.dev/server: new"),
    "another value of a label": ({"metadata": {"labels": {"app": "x"}}}, "tailrace.dev/server: app"),
    "a label less": ({"metadata": {"labels": {FOREIGN: None}}}, f"tailrace.dev/server: {FOREIGN}"),
    "a new annotation": ({"metadata": {"annotations": {"new": "x"}}}, "the deletion cost: new"),
    "another value of an annotation": ({"metadata": {"annotations": {FOREIGN: "x"}}}, f"the deletion cost: {FOREIGN}"),
    "an annotation less": ({"metadata": {"annotations": {FOREIGN: None}}}, f"the deletion cost: {FOREIGN}"),
    "a look-alike prefix": ({"metadata": {"annotations": {"tailrace.development/x": "x"}}}, "tailrace.development/x"),
    "an owner": (
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]}},
        "may not change metadata.ownerReferences",
    ),
}


async def test_what_is_not_the_operators_is_refused_with_its_name(operator: Api, pod: Document) -> None:
    said = {what: await refusal(operator, pod, body) for what, (body, _) in REFUSED.items()}
    assert {what: text for what, text in said.items() if REFUSED[what][1] not in text} == {}


async def test_all_that_the_operator_writes_to_pods_is_let_through(operator: Api, pod: Document) -> None:
    pod = await change(operator, pod, membership.entry(pod, SERVER))
    assert names.FINALIZER in objects.finalizers(pod)
    pod = await change(operator, pod, cordons.change(pod, Cordon("", draining=True, generation=1), moment=1.0))
    pod = await change(operator, pod, cordons.change(pod, Cordon("", draining=False, generation=1), moment=1.0))
    pod = await change(operator, pod, {"metadata": {"annotations": {names.ANNOTATION_GATE_MARK: "x", costs.COST: "3"}}})
    pod = await change(operator, pod, membership.farewell(pod, moment=1.0))
    pod = await change(operator, pod, membership.exit_(pod))
    assert not [key for key in {**objects.labels(pod)} if key.startswith(names.PREFIX)]
    pod = await change(operator, pod, membership.entry(pod, SERVER))
    pod = await change(operator, pod, finalizers.removal(pod))
    assert objects.finalizers(pod) == [FOREIGN]


async def test_other_people_may_change_what_they_like(operator: Api, installed: Cluster, pod: Document) -> None:
    namespace = objects.namespace(pod)
    installed.kubectl("label", "pod", "a", "-n", namespace, "new=label")
    assert installed.get("pod", "a", "-n", namespace)["metadata"]["labels"]["new"] == "label"
