"""A pod that left the selector of its server is let go once, however late the watch is."""

from typing import Any

from tests.kube.apiserver import ApiServer, Document, serving
from tests.kube.documents import pod, server

from tailrace.core.model import EndpointState
from tailrace.kube import objects
from tailrace.kube.adoption import Adoption
from tailrace.kube.client import Listing
from tailrace.kube.problems import Problems
from tailrace.kube.view import KINDS, View

KEY = "ns/one"
SELECTING = server(selector={"matchLabels": {"app": "llm"}})


def seen(*pods: Document) -> View:
    view = View(emit=lambda _: None, touched=lambda _: None, strayed=lambda _: None, measure=lambda *_: None)
    lists = {objects.PODS: pods, objects.SERVERS: (SELECTING,)}
    view.on_lists((kind, None, Listing(lists.get(kind, ()), "2000")) for kind in KINDS)
    return view


def ours(stored: Document) -> list[str]:
    """Return the labels and annotations of ours on a pod."""
    meta: dict[str, Any] = stored["metadata"]
    return [key for key in {**meta["labels"], **meta.get("annotations", {})} if key.startswith("tailrace.dev/")]


async def test_a_pod_that_was_let_go_is_not_marked_again_while_the_watch_is_late() -> None:
    cluster, view = ApiServer(), seen(pod())
    cluster.put(pod())
    async with serving(cluster.answer) as api:
        adoption = Adoption(api, view, Problems(lambda _: None), lambda _: EndpointState.DRAINED)
        for _ in range(3):  # it is marked, let go, and looked at once more as it was seen at first
            await adoption.reconcile(KEY)
        adoption.stop()
    stored = cluster.pod()
    assert stored is not None
    assert not ours(stored)
    assert "tailrace.dev/drain" not in stored["metadata"]["finalizers"]
