"""The child's view of the cluster: what was last seen, and the observations that follow from it.

The view is told of single changes (``on_event``) and of whole lists (``on_lists``), in any order; it never does I/O.
Observations are made only where an endpoint or a server really differs from what was told before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tailrace.api import names
from tailrace.core.model import (
    DrainReason,
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    Observation,
    ServerGone,
    ServerSeen,
    ServerSpec,
    Snapshot,
)
from tailrace.kube import objects
from tailrace.kube.client import Document, Listing, Resource
from tailrace.kube.departure import departure
from tailrace.kube.gpumemory import gpu_tflops
from tailrace.kube.podstate import Node, Owner, lost_owner, node_facts, observe
from tailrace.kube.servers import Server, understand
from tailrace.kube.serverstate import fixed_endpoints
from tailrace.kube.store import Store
from tailrace.kube.trim import TRIMS

Measure = Callable[[Document, Mapping[str, str]], int | None]
"""GPU memory of a pod in GB from the labels of its node, None when they do not tell."""

KINDS = (
    objects.DEPLOYMENTS,
    objects.BUDGETS,
    objects.REPLICA_SETS,
    objects.PODS,
    objects.NODES,
    objects.SERVERS,
)
"""In the order in which they are to be listed: then a pod whose node or server is not listed has lost it."""

_LOST_NODE = Node(lost=True)


class View:
    """See the module. ``emit`` takes observations; ``touched`` is told the keys of servers to reconcile.

    ``strayed`` is told a pod that vanished with our finalizer on: it is gone, or has lost our label.
    """

    def __init__(
        self,
        *,
        emit: Callable[[Observation], None],
        touched: Callable[[str], None],
        strayed: Callable[[Document], None],
        measure: Measure,
    ) -> None:
        self._emit = emit
        self._touched = touched
        self._strayed = strayed
        self._measure = measure
        self._stores = {kind: Store(TRIMS[kind]) for kind in KINDS}
        self._servers: dict[str, Server] = {}
        self._lost_servers: dict[str, Owner] = {}
        self._pods_of: dict[str, dict[str, None]] = {}
        self._living: dict[str, set[str]] = {}
        self._nodes: dict[str, Node] = {}
        self._told: dict[str, EndpointSpec] = {}
        self._fixed: dict[str, tuple[str, ...]] = {}
        self._told_servers: dict[str, ServerSpec] = {}

    # What others read

    def servers(self) -> Mapping[str, Server]:
        """Return the servers by key."""
        return self._servers

    def pod(self, uid: str) -> Document | None:
        """Return a pod by its uid."""
        return self._stores[objects.PODS].get(uid)

    def pods(self, key: str | None = None) -> list[Document]:
        """Return the pods of a server, or all that carry our label."""
        store = self._stores[objects.PODS]
        if key is None:
            return list(store)
        return [pod for uid in self._pods_of.get(key, ()) if (pod := store.get(uid))]

    def deployment(self, key: str) -> Document | None:
        """Return the Deployment of this name among those that carry our label."""
        return self._stores[objects.DEPLOYMENTS].named(key)

    def budget(self, key: str) -> Document | None:
        """Return the PodDisruptionBudget of this name among those that carry our label."""
        return self._stores[objects.BUDGETS].named(key)

    def node(self, name: str) -> Node | None:
        """Return what is known of a node, None when nothing is."""
        return self._nodes.get(name)

    def endpoint(self, uid: str) -> EndpointSpec | None:
        """Return the endpoint as last told."""
        return self._told.get(uid)

    def endpoints(self, key: str) -> list[EndpointSpec]:
        """Return the endpoints of a server, the oldest first."""
        uids = [*self._pods_of.get(key, ()), *self._fixed.get(key, ())]
        mine = [spec for uid in uids if (spec := self._told.get(uid))]
        return sorted(mine, key=lambda spec: (spec.created_at, spec.name))

    def kept(self, kind: Resource, document: Document) -> Document:
        """Return what is kept of an object: a whole list of what is known already then takes no room of its own."""
        return self._stores[kind].kept(document)

    def snapshot(self) -> Snapshot:
        """Return the whole truth as seen now; only worth something after ``on_lists``."""
        return Snapshot(tuple(self._told_servers.values()), tuple(self._told.values()))

    # What happens

    def on_event(self, kind: Resource, change: str | None, document: Document) -> None:
        """Take in one event of a watch; ``change`` DELETED says that the object is gone."""
        store = self._stores[kind]
        if change == "DELETED":
            if store.vanished(document):
                self._lost(kind, document)
        elif store.seen(document):
            self._news(kind, document)

    def on_lists(self, lists: Iterable[tuple[Resource, str | None, Listing]]) -> None:
        """Take in whole lists of (kind, namespace or None for all); afterwards ``snapshot`` is the truth."""
        for kind, namespace, listing in lists:
            news, missing = self._stores[kind].sync(listing, namespace)
            for document in news:
                self._news(kind, document)
            for document in missing:
                self._lost(kind, document)
        self._mark_lost_nodes()
        for store in self._stores.values():
            store.age()

    # How it is taken in

    def _news(self, kind: Resource, document: Document) -> None:
        if kind is objects.PODS:
            self._pod_seen(objects.uid(document))
        elif kind is objects.NODES:
            self._node_seen(objects.name(document), node_facts(document))
        elif kind is objects.SERVERS:
            self._server_seen(document)
        else:
            self._touch(objects.server_key(document))

    def _lost(self, kind: Resource, document: Document) -> None:
        if kind is objects.PODS:
            self._pod_gone(objects.uid(document), document)
        elif kind is objects.NODES:
            self._node_seen(objects.name(document), _LOST_NODE)
        elif kind is objects.SERVERS:
            self._server_gone(document)
        else:
            self._touch(objects.server_key(document))

    def _touch(self, key: str | None) -> None:
        if key:
            self._touched(key)

    def _server_seen(self, document: Document) -> None:
        key = objects.key(document)
        before = self._servers.get(key)
        server = understand(document, before)
        if server is not None:
            self._servers[key] = server
            self._tell_server(server)
            if before is None or before.model.spec != server.model.spec:
                self._tell_endpoints(key)
        self._touch(key)

    def _server_gone(self, document: Document) -> None:
        key = objects.key(document)
        if self._stores[objects.SERVERS].named(key) is not None:
            return  # another one of the same name is there already
        server = self._servers.pop(key, None)
        if server is not None:
            if self._pods_of.get(key):
                self._lost_servers[key] = server.owner
            del self._told_servers[key]
            self._emit(ServerGone(key))
            self._tell_endpoints(key)
        self._touch(key)

    def _tell_server(self, server: Server) -> None:
        if self._told_servers.get(server.spec.key) != server.spec:
            self._told_servers[server.spec.key] = server.spec
            self._emit(ServerSeen(server.spec))

    def _tell_endpoints(self, key: str) -> None:
        for uid in list(self._pods_of.get(key, ())):
            self._pod_seen(uid)
        server = self._servers.get(key)
        fixed = {spec.uid: spec for spec in fixed_endpoints(server.model)} if server else {}
        for uid in self._fixed.pop(key, ()):
            if uid not in fixed:
                self._forget(uid)
        if fixed:
            self._fixed[key] = tuple(fixed)
        for spec in fixed.values():
            self._tell(spec)

    def _pod_seen(self, uid: str) -> None:
        pod = self._stores[objects.PODS].get(uid)
        key = objects.server_key(pod) if pod else None
        if pod is None or key is None:
            return
        self._index(uid, key)
        self._count(pod, lives=not objects.deleting(pod))
        node = self._nodes.get(str(pod["spec"].get("nodeName", "")))
        before = self._told.get(uid)
        known = before.deletion if before else None
        first_deletion = objects.deleting(pod) and known is None
        self._tell(
            observe(
                pod,
                owner=self._owner(key, pod),
                node=node,
                gpu_memory_gb=self._measure(pod, node.labels) if node else None,
                gpu_tflops=gpu_tflops(pod, node.labels) if node else None,
                before=known,
                why=self._departure(key, pod) if first_deletion else DrainReason.DELETE,
            )
        )
        self._touch(key)

    def _index(self, uid: str, key: str) -> None:
        before = self._told.get(uid)
        if before and before.server != key:
            self._unindex(uid, before.server)
        self._pods_of.setdefault(key, {})[uid] = None

    def _unindex(self, uid: str, key: str) -> None:
        self._pods_of.get(key, {}).pop(uid, None)
        if not self._pods_of.get(key):
            self._pods_of.pop(key, None)
            self._lost_servers.pop(key, None)

    def _count(self, pod: Document, *, lives: bool) -> None:
        """Keep the pods of each controller that are not going away: counting them anew for each deletion is slow."""
        controller = str((objects.controller(pod) or {}).get("uid", ""))
        mine = self._living.setdefault(controller, set())
        (mine.add if lives else mine.discard)(objects.uid(pod))
        if not mine:
            del self._living[controller]

    def _owner(self, key: str, pod: Document) -> Owner:
        server = self._servers.get(key)
        return server.owner if server else self._lost_servers.get(key) or lost_owner(pod)

    def _departure(self, key: str, pod: Document) -> DrainReason:
        server = self._servers.get(key)
        wanted = server.model.spec.replicas if server and server.model.spec.template else None
        sets = [each for each in self._stores[objects.REPLICA_SETS] if objects.server_key(each) == key]
        return departure(pod, replica_sets=sets, living=lambda uid: len(self._living.get(uid, ())), wanted=wanted)

    def _pod_gone(self, uid: str, document: Document) -> None:
        key = objects.server_key(document) or ""
        before = self._told.get(uid)
        self._count(document, lives=False)
        for each in {key, before.server if before else key}:
            self._unindex(uid, each)
        self._forget(uid)
        self._touch(before.server if before else key)
        if names.FINALIZER in objects.finalizers(document):
            self._strayed(document)

    def _node_seen(self, name: str, facts: Node) -> None:
        if self._nodes.get(name) == facts:
            return
        self._nodes[name] = facts
        for pod in self._stores[objects.PODS]:
            if pod["spec"].get("nodeName") == name:
                self._pod_seen(objects.uid(pod))

    def _mark_lost_nodes(self) -> None:
        """Take nodes for lost that pods are bound to and a newer list does not name, even if nobody here saw them."""
        listed = {objects.name(node) for node in self._stores[objects.NODES]}
        if not listed:
            return  # no right to list nodes, or none there: then nothing is known of any
        bound = {str(pod["spec"].get("nodeName", "")) for pod in self._stores[objects.PODS]}
        for name in bound - listed - {""}:
            self._node_seen(name, _LOST_NODE)
        for name in [name for name in self._nodes if name not in listed and name not in bound]:
            del self._nodes[name]

    def _tell(self, spec: EndpointSpec) -> None:
        before = self._told.get(spec.uid)
        self._told[spec.uid] = spec
        if before is None or replace(before, version=spec.version) != spec:
            self._emit(EndpointSeen(spec))

    def _forget(self, uid: str) -> None:
        if self._told.pop(uid, None) is not None:
            self._emit(EndpointGone(uid))
