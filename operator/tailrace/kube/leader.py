"""Everything that writes to the cluster, and only while this replica leads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from tailrace.kube.client import Api, Document
from tailrace.kube.events import Events
from tailrace.kube.history import History
from tailrace.kube.problems import Problems
from tailrace.kube.queue import WorkQueue
from tailrace.kube.releases import Releases
from tailrace.kube.view import View
from tailrace.kube.workload import Installation
from tailrace.kube.workloads import Workloads
from tailrace.link import Desired, EndpointReport
from tailrace.settings import Settings

Explain = Callable[[Document, Mapping[str, str]], str]
"""Why the GPU memory of a pod on a node with these labels is not known."""


class Leader:
    """Reconciles what the parent desires and what InferenceServers say; idle while another replica leads."""

    def __init__(
        self,
        api: Api,
        view: View,
        settings: Settings,
        *,
        identity: str,
        explain_memory: Explain,
    ) -> None:
        self._view = view
        self._leading = False
        self._reports: dict[str, EndpointReport] = {}
        self._drains = History()
        self._problems = Problems(self._touch_status)
        installation = Installation(settings.gate_image, settings.gate_routers, settings.gate_image_pull_policy)
        events = Events(api, instance=identity, monotonic=time.monotonic, wall=time.time)
        self._releases = Releases(api, view, events, self._drains, self._touch_status)
        self._workloads = Workloads(api, view, self._problems, installation, self._before_shrinking)
        self._release_queue: WorkQueue[str] = WorkQueue("release", self._release, workers=16)
        self._server_queue: WorkQueue[str] = WorkQueue("server", self._reconcile)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._release_queue.run())
            group.create_task(self._server_queue.run())

    def lead(self, leading: bool) -> None:
        """Begin or cease to lead."""
        self._leading = leading
        if leading:
            self._look_at_everything()

    def desire(self, desired: Desired) -> None:
        """Take in what the parent wants."""
        self._reports = {report.uid: report for report in desired.endpoints}
        for uid in self._releases.want(desired.releases):
            self._release_queue.add(uid)

    def touch(self, key: str) -> None:
        """Have a look at a server, its Deployment or its pods: something about them has changed."""
        self._server_queue.add(key)
        for uid in self._releases.open():
            self._release_queue.add(uid)

    def resynced(self) -> None:
        """Have a look at everything: there was a full list."""
        if self._leading:
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        for key in self._view.servers():
            self._server_queue.add(key)
        for uid in self._releases.open():
            self._release_queue.add(uid)

    def _touch_status(self, key: str) -> None:
        pass

    async def _release(self, uid: str) -> float | None:
        return await self._releases.work(uid) if self._leading else None

    async def _reconcile(self, key: str) -> float | None:
        return await self._workloads.reconcile(key) if self._leading else None

    async def _before_shrinking(self, key: str) -> None:
        pass
