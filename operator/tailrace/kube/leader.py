"""Everything that writes to the cluster, and only while this replica leads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tailrace.core.model import EndpointState
from tailrace.kube import costs, objects
from tailrace.kube.adoption import Adoption
from tailrace.kube.budgets import Budgets
from tailrace.kube.client import Api, Document
from tailrace.kube.events import Events
from tailrace.kube.history import History
from tailrace.kube.orphans import Orphans
from tailrace.kube.problems import Problems
from tailrace.kube.queue import WorkQueue
from tailrace.kube.releases import Releases
from tailrace.kube.statuses import Explain, Statuses
from tailrace.kube.view import View
from tailrace.kube.workload import Installation
from tailrace.kube.workloads import Workloads
from tailrace.link import Desired, EndpointReport
from tailrace.settings import Settings

RELEASE_RETRY_SECONDS = 2.0
"""Between two tries at most: the pod has drained, and its name and place may be waited for."""

REPORT_SECONDS = 1.0
"""After a change of counters only, before the status is compared with them."""

COALESCE_SECONDS = 0.05
"""After any other change: a status is made of all endpoints, and a rollout changes many of them in a row."""


class Leader:
    """Reconciles what the parent desires and what InferenceServers say; idle while another replica leads.

    ``leading`` is asked before every look and every single write: a Lease may run out between two of them.
    """

    def __init__(
        self,
        api: Api,
        view: View,
        settings: Settings,
        *,
        identity: str,
        explain: Explain,
        leading: Callable[[], bool],
    ) -> None:
        self._api = api = api.fenced(leading)
        self._view = view
        self._leading = leading
        self._reports: dict[str, EndpointReport] = {}
        drains, gates = History(), installation(settings)
        events = Events(api, instance=identity, monotonic=time.monotonic, wall=time.time)
        problems = Problems(self._touch_status)
        self._releases = Releases(api, view, events, drains, self._touch_status)
        self._workloads = Workloads(api, view, problems, gates, self._before_shrinking)
        self._budgets = Budgets(api, view, problems)
        self._adoption = Adoption(api, view, problems, self._state)
        self._orphans = Orphans(api, view, patience=2 * settings.resync_seconds)
        self._statuses = Statuses(
            api,
            view,
            events=events,
            problems=problems,
            drains=drains,
            installation=gates,
            explain=explain,
            counter_seconds=settings.status_seconds,
        )
        self._strays: dict[str, Document] = {}
        self._release_queue: WorkQueue[str] = WorkQueue(
            "release", self._release, workers=16, last_delay=RELEASE_RETRY_SECONDS
        )
        self._server_queue: WorkQueue[str] = WorkQueue("server", self._reconcile)
        self._status_queue: WorkQueue[str] = WorkQueue("status", self._status)
        self._orphan_queue: WorkQueue[str] = WorkQueue("orphan", self._free)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue in (self._release_queue, self._server_queue, self._status_queue, self._orphan_queue):
                group.create_task(queue.run())
            group.create_task(self._adoption.run())

    def lead(self, leading: bool) -> None:
        """Take in that we began or ceased to lead."""
        if leading:
            self._look_at_everything()
        else:
            self._adoption.stop()

    def desire(self, desired: Desired) -> None:
        """Take in what the parent wants, and how it says the endpoints stand."""
        for uid in self._releases.want(desired.releases):
            self._release_queue.offer(uid)
        if desired.endpoints is not None:
            self._hear(desired.endpoints)
        self._hear_grades(dict(desired.grades))

    def _hear(self, reports: tuple[EndpointReport, ...]) -> None:
        before, self._reports = self._reports, {report.uid: report for report in reports}
        self._statuses.reports = self._reports
        moved = {uid for uid, report in self._reports.items() if _state(report) is not _state(before.get(uid))}
        for key in {self._reports[uid].server for uid in moved}:
            self._server_queue.add(key)
        for key in {report.server for uid, report in self._reports.items() if report != before.get(uid)}:
            self._status_queue.add_after(key, REPORT_SECONDS)

    def _hear_grades(self, grades: dict[str, str]) -> None:
        before, self._statuses.grades = self._statuses.grades, grades
        for key in {key for key, _ in grades.items() ^ before.items()}:
            self._status_queue.add_after(key, REPORT_SECONDS)

    def touch(self, key: str) -> None:
        """Have a look at a server, its Deployment or its pods: something about them has changed."""
        self._server_queue.add(key)
        for uid in self._releases.open():
            self._release_queue.offer(uid)

    def stray(self, pod: Document) -> None:
        """Have a look at a pod that vanished from the watch with our finalizer on, until it is known to be free."""
        uid = objects.uid(pod)
        self._strays[uid] = pod
        if self._leading():
            self._orphan_queue.add(uid)

    def resynced(self) -> None:
        """Have a look at everything: there was a full list."""
        self._look_at_strays()
        if self._leading():
            self._look_at_everything()
            for uid in self._orphans.due():
                self._orphan_queue.add(uid)

    def _look_at_strays(self) -> None:
        """Have a look at them while another replica leads, too: it may have freed them, and may not have seen them."""
        for uid in self._strays:
            self._orphan_queue.offer(uid)

    def _look_at_everything(self) -> None:
        self._look_at_strays()
        for key in self._view.servers():
            self._server_queue.add(key)
        for uid in self._releases.open():
            self._release_queue.offer(uid)

    def _touch_status(self, key: str) -> None:
        self._status_queue.add_after(key, COALESCE_SECONDS)

    async def _release(self, uid: str) -> float | None:
        return await self._releases.work(uid) if self._leading() else None

    async def _reconcile(self, key: str) -> float | None:
        if not self._leading():
            return None
        self._touch_status(key)
        parts = (self._workloads, self._budgets, self._adoption)
        later = [await part.reconcile(key) for part in parts]
        return min((seconds for seconds in later if seconds is not None), default=None)

    async def _status(self, key: str) -> float | None:
        return await self._statuses.work(key) if self._leading() else None

    async def _free(self, uid: str) -> float | None:
        stray = self._strays.get(uid)
        if stray is not None:
            await self._free_stray(stray)
        elif self._leading():
            return await self._orphans.free(uid)
        return None

    async def _free_stray(self, seen: Document) -> None:
        pod = await self._orphans.stray(seen)
        if pod is not None:
            if not self._leading():
                return
            await self._orphans.free_stray(pod)
        if self._strays.get(objects.uid(seen)) is seen:
            del self._strays[objects.uid(seen)]

    async def _before_shrinking(self, key: str) -> None:
        in_flight = {uid: report.in_flight for uid, report in self._reports.items()}
        await costs.write(self._api, costs.changes(self._view.pods(key), in_flight))

    def _state(self, uid: str) -> EndpointState | None:
        return _state(self._reports.get(uid))


def _state(report: EndpointReport | None) -> EndpointState | None:
    return report.state if report else None


def installation(settings: Settings) -> Installation:
    """Return what this installation gives to every gate."""
    return Installation(settings.gate_image, settings.gate_routers, settings.gate_image_pull_policy)
