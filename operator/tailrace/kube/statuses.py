"""Writes the status of InferenceServers: conditions at once, counters now and then. Runs on the leader only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tailrace.core.model import EndpointSpec
from tailrace.kube import objects, status, workload
from tailrace.kube.client import Api, Document
from tailrace.kube.conditions import Facts
from tailrace.kube.events import Events
from tailrace.kube.history import History
from tailrace.kube.pools import standing
from tailrace.kube.problems import Problems
from tailrace.kube.servers import Server
from tailrace.kube.view import View
from tailrace.kube.workload import Installation
from tailrace.link import EndpointReport

Explain = Callable[[Document, Mapping[str, str]], str]
"""Why the GPU memory of a pod on a node with these labels is not known; empty when it is."""

BURST_SECONDS = 0.5
"""Between two writes of one status: a rollout changes many things within a moment."""


class Statuses:
    """Compares what the status should say with what it says, one InferenceServer at a time."""

    def __init__(
        self,
        api: Api,
        view: View,
        *,
        events: Events,
        problems: Problems,
        drains: History,
        installation: Installation,
        explain: Explain,
        counter_seconds: float,
    ) -> None:
        self._api = api
        self._view = view
        self._events = events
        self._problems = problems
        self._drains = drains
        self._installation = installation
        self._explain = explain
        self._counter_seconds = counter_seconds
        self._listening_since = time.time()
        self._written_at: dict[str, float] = {}
        self.reports: Mapping[str, EndpointReport] = {}
        self.grades: Mapping[str, str] = {}

    async def work(self, key: str) -> float | None:
        """Write the status of this server if it is due; return when to look again."""
        server = self._view.servers().get(key)
        if server is None:
            self._forget(key)
            return None
        self._warn(key, server)
        since = time.monotonic() - self._written_at.get(key, float("-inf"))
        if since < BURST_SECONDS:  # not even looked at: of thousands of endpoints a status takes long to make
            return BURST_SECONDS - since
        stored = server.document.get("status") or {}
        wanted = status.build(self.facts(key, server), stored)
        news, urgent = status.differs(wanted, stored)
        if not news:
            return None
        if not urgent and since < self._counter_seconds:
            return self._counter_seconds - since
        await self._write(key, server, wanted)
        return None

    def facts(self, key: str, server: Server) -> Facts:
        """Gather what the status is made of."""
        endpoints = self._view.endpoints(key)
        return Facts(
            server=server,
            now=time.time(),
            params=workload.gate_params(server.model, self._installation),
            endpoints=endpoints,
            reports={spec.uid: self.reports[spec.uid] for spec in endpoints if spec.uid in self.reports},
            pods=self._view.pods(key),
            deployment=self._view.deployment(key),
            problems=self._problems.of(key),
            standing=standing(server.spec, [other.spec for other in self._view.servers().values()]),
            memory={spec.uid: why for spec in endpoints if (why := self._unknown_memory(spec))},
            drains=self._drains.of(key, (server.document.get("status") or {}).get("drains") or ()),
            listening_since=self._listening_since,
            grade=self.grades.get(key),
        )

    def _unknown_memory(self, spec: EndpointSpec) -> str:
        pod, node = self._view.pod(spec.uid), self._view.node(spec.node)
        if spec.gpu_memory_gb is not None or pod is None or node is None:
            return ""
        return f"node {spec.node}: {self._explain(pod, node.labels)}"

    async def _write(self, key: str, server: Server, wanted: Document) -> None:
        meta = objects.meta(server.document)
        guard = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        written = await self._api.patch(
            objects.SERVERS,
            objects.namespace(server.document),
            objects.name(server.document),
            {"metadata": guard, "status": wanted},
            subresource="status",
        )
        self._written_at[key] = time.monotonic()
        # Not waiting for the watch: the next look would else compare with what was stored before.
        self._view.on_event(objects.SERVERS, "MODIFIED", written)

    def _warn(self, key: str, server: Server) -> None:
        for problem in self._problems.of(key):
            self._events.say(server.document, "InferenceServer", problem.reason, problem.message, warning=True)

    def _forget(self, key: str) -> None:
        self._written_at.pop(key, None)
        self._problems.forget(key)
        self._drains.forget(key)
