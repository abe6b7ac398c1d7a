"""From events and lists to observations."""

from typing import Any

from tests.kube.documents import newer, pod, server

from tailrace.core.model import (
    DrainReason,
    EndpointGone,
    EndpointSeen,
    Observation,
    ServerGone,
    ServerSeen,
)
from tailrace.kube import objects
from tailrace.kube.client import Document, Listing, Resource
from tailrace.kube.view import KINDS, View


class Told:
    """A view with everything it tells."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.touched: list[str] = []
        self.strays: list[str] = []
        self.view = View(
            emit=self.observations.append,
            touched=self.touched.append,
            strayed=lambda document: self.strays.append(objects.name(document)),
            measure=lambda _, labels: int(labels["gb"]) if "gb" in labels else None,
        )

    def event(self, kind: Resource, document: Document, change: str | None = "MODIFIED") -> list[Observation]:
        """Let an event happen and return what was told because of it."""
        self.observations.clear()
        self.view.on_event(kind, change, document)
        return list(self.observations)

    def lists(self, version: int = 100, **listed: list[Document]) -> None:
        """Let whole lists come in, by plural; kinds that are not named are empty."""
        self.observations.clear()
        self.view.on_lists((kind, None, Listing(tuple(listed.get(kind.plural, ())), str(version))) for kind in KINDS)


def node(name: str = "n1", version: int = 1, **labels: str) -> Document:
    meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta, "spec": {}}


def endpoint(found: list[Observation]) -> Any:  # noqa: ANN401
    (only,) = found
    assert isinstance(only, EndpointSeen)
    return only.spec


def test_a_server_is_told_before_its_pods_take_its_capacity() -> None:
    told = Told()
    told.event(objects.PODS, pod())
    first, second = told.event(objects.SERVERS, server(capacity=7))
    assert isinstance(first, ServerSeen)
    assert isinstance(second, EndpointSeen)
    assert second.spec.capacity == 7


def test_an_event_that_changes_nothing_for_the_core_is_not_told() -> None:
    told = Told()
    told.event(objects.PODS, pod(version=1))
    assert told.event(objects.PODS, pod(version=2, annotations={"else": "where"})) == []
    assert endpoint(told.event(objects.PODS, pod(version=3, status={"podIP": "10.0.0.9"}))).version == 3


def test_gpu_memory_follows_the_labels_of_the_node() -> None:
    told = Told()
    assert endpoint(told.event(objects.PODS, pod())).gpu_memory_gb is None
    assert endpoint(told.event(objects.NODES, node(gb="80"))).gpu_memory_gb == 80
    assert told.event(objects.NODES, node(version=2, gb="80")) == []


def test_a_pod_of_a_deleted_server_stays_an_endpoint_of_its_port() -> None:
    told = Told()
    told.event(objects.SERVERS, server(port=9000))
    told.event(objects.PODS, pod())
    gone = told.event(
        objects.SERVERS, server() | {"metadata": server()["metadata"] | {"resourceVersion": "2"}}, "DELETED"
    )
    assert gone == [ServerGone("ns/one")]
    assert told.view.endpoints("ns/one")[0].address == "10.0.0.1:9000"


def test_a_server_that_is_not_understood_keeps_what_was_understood_before() -> None:
    told = Told()
    told.event(objects.SERVERS, server(capacity=7))
    assert told.event(objects.SERVERS, newer(server(capacity="many"), 2)) == []
    assert told.view.servers()["ns/one"].model.spec.capacity == 7
    assert "capacity" in told.view.servers()["ns/one"].error
    assert told.event(objects.SERVERS, server("other", capacity="many")) == []


def test_fixed_endpoints_come_and_go_with_the_document() -> None:
    told = Told()
    told.event(objects.SERVERS, server(endpoints=[{"address": "h:1"}, {"address": "h:2"}]))
    assert [spec.uid for spec in told.view.endpoints("ns/one")] == ["ns/one/h:1", "ns/one/h:2"]
    changed = newer(server(endpoints=[{"address": "h:2"}]), 2)
    assert told.event(objects.SERVERS, changed) == [EndpointGone("ns/one/h:1")]
    last = told.event(
        objects.SERVERS, changed | {"metadata": changed["metadata"] | {"resourceVersion": "3"}}, "DELETED"
    )
    assert last == [ServerGone("ns/one"), EndpointGone("ns/one/h:2")]


def test_a_list_that_does_not_name_a_pod_ends_it_and_the_snapshot_has_the_rest() -> None:
    told = Told()
    told.event(objects.PODS, pod("a", version=5))
    told.lists(pods=[pod("b", version=6)], inferenceservers=[server()])
    assert EndpointGone("uid-a") in told.observations
    snapshot = told.view.snapshot()
    assert [spec.uid for spec in snapshot.endpoints] == ["uid-b"]
    assert [spec.key for spec in snapshot.servers] == ["ns/one"]


def test_a_pod_whose_node_a_newer_list_does_not_name_has_ended() -> None:
    told = Told()
    told.lists(pods=[pod(node="lost")], nodes=[node("n1")])
    assert told.view.snapshot().endpoints[0].ended


def test_no_node_is_lost_where_nodes_may_not_be_listed() -> None:
    told = Told()
    told.lists(pods=[pod(node="n1")])
    assert not told.view.snapshot().endpoints[0].ended


def test_a_deleted_node_ends_its_pods() -> None:
    told = Told()
    told.event(objects.PODS, pod())
    told.event(objects.NODES, node())
    assert endpoint(told.event(objects.NODES, node(version=2), "DELETED")).ended


def test_the_reason_and_begin_of_a_deletion_are_those_first_seen() -> None:
    told = Told()
    told.event(objects.SERVERS, server(replicas=0))
    old = {"uid": "rs-1", "controller": True}
    sets: dict[str, Any] = {
        "metadata": {"name": "rs", "namespace": "ns", "uid": "rs-1", "resourceVersion": "1"},
        "spec": {"replicas": 0},
    }
    sets["metadata"]["labels"] = {"tailrace.dev/server": "one"}
    told.event(objects.REPLICA_SETS, sets)
    deleted: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:10:00Z", "ownerReferences": [old]}
    first = endpoint(told.event(objects.PODS, pod(version=2, deletionGracePeriodSeconds=600, **deleted)))
    assert first.deletion.reason is DrainReason.SCALE_DOWN
    assert told.event(objects.PODS, pod(version=3, deletionGracePeriodSeconds=0, **deleted)) == []


def test_a_pod_that_vanishes_with_our_finalizer_on_is_a_stray_even_while_it_is_being_deleted() -> None:
    told = Told()
    deleted: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:10:00Z"}
    for name, meta in (("a", {}), ("b", deleted), ("c", deleted | {"finalizers": []})):
        told.event(objects.PODS, pod(name, **meta))
        told.event(objects.PODS, pod(name, version=2, **meta), "DELETED")
    assert told.strays == ["a", "b"]


def test_a_pod_that_vanished_between_two_lists_is_a_stray_if_it_had_our_finalizer() -> None:
    told = Told()
    told.lists(pods=[pod("a"), pod("b", finalizers=[])])
    told.lists(pods=[])
    assert told.strays == ["a"]


def test_of_a_deleted_server_only_what_its_pods_need_is_kept() -> None:
    told = Told()
    for name in ("one", "two"):
        told.event(objects.SERVERS, server(name, port=9000))
    told.event(objects.PODS, pod("a", server="two"))
    for name in ("one", "two"):
        told.event(objects.SERVERS, newer(server(name, port=9000), 2), "DELETED")
    assert told.view._lost_servers.keys() == {"ns/two"}
    told.event(objects.PODS, pod("a", server="three", version=2))
    assert told.view._lost_servers == {}
