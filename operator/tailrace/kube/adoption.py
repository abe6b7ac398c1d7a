"""Adopts the pods that InferenceServers select, and lets those go that left. Runs on the leader only.

Every InferenceServer with a selector has a list and watch of its own, because its pods carry no label of ours yet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tailrace.core.model import EndpointState
from tailrace.kube import finalizers, membership, objects, trim
from tailrace.kube.client import Api, ApiError, Document
from tailrace.kube.problems import Problem, Problems
from tailrace.kube.queue import WorkQueue
from tailrace.kube.servers import Server
from tailrace.kube.view import View

log = logging.getLogger(__name__)

FINDER = "selector"
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 15.0


class Adoption:
    """Keeps a watch for every selector while leading; ``state`` tells how the data plane sees an endpoint."""

    def __init__(self, api: Api, view: View, problems: Problems, state: Callable[[str], EndpointState | None]) -> None:
        self._api = api
        self._view = view
        self._problems = problems
        self._state = state
        self._watches: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._candidates: dict[str, dict[str, Document]] = {}
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("adoption", self._enter)

    async def run(self) -> None:
        """Adopt until cancelled."""
        try:
            await self._queue.run()
        finally:
            self.stop()

    def stop(self) -> None:
        """End all watches."""
        for key in list(self._watches):
            self._end(key)

    async def reconcile(self, key: str) -> float | None:
        """Have a watch for this server if it selects pods, none otherwise; let pods go that left. See ``WorkQueue``."""
        server = self._view.servers().get(key)
        if server is None or server.model.spec.selector is None:
            self._end(key)
            return None
        self._begin(key, membership.query(server.model.spec.selector))
        for pod in self._view.pods(key):
            if not membership.selects(server.model.spec.selector, objects.labels(pod)):
                await self._let_go(pod, server)
        return None

    # Watching

    def _begin(self, key: str, query: str) -> None:
        running = self._watches.get(key)
        if running and running[0] == query and not running[1].done():
            return
        self._end(key)
        self._watches[key] = (query, asyncio.get_running_loop().create_task(self._follow(key, query)))

    def _end(self, key: str) -> None:
        running = self._watches.pop(key, None)
        if running:
            running[1].cancel()
        self._candidates.pop(key, None)
        self._problems.report(key, FINDER)

    async def _follow(self, key: str, query: str) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._list_and_watch(key, query)
                delay = FIRST_RETRY_SECONDS
            except ApiError as error:
                log.info("pods that %s selects: %s", key, error)
            except Exception:
                log.exception("pods that %s selects", key)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    async def _list_and_watch(self, key: str, query: str) -> None:
        namespace = key.partition("/")[0]
        listing = await self._api.list_all(objects.PODS, namespace, labels=query, trim=trim.pod)
        self._candidates[key] = {objects.uid(pod): pod for pod in listing.items}
        for pod in listing.items:
            self._consider(key, pod)
        self._report(key)
        async for change in self._api.watch(objects.PODS, namespace, version=listing.version, labels=query):
            if change.type == "DELETED":
                self._candidates[key].pop(objects.uid(change.object), None)
            elif change.type != "BOOKMARK":
                pod = trim.pod(change.object)
                self._candidates[key][objects.uid(pod)] = pod
                self._consider(key, pod)
            self._report(key)

    def _consider(self, key: str, pod: Document) -> None:
        if objects.server_key(pod) in (None, key) and not _settled(pod, key):
            self._queue.add((key, objects.uid(pod)))

    def _report(self, key: str) -> None:
        taken = [pod for pod in self._candidates.get(key, {}).values() if objects.server_key(pod) not in (None, key)]
        self._problems.report(key, FINDER, *([_ambiguous(taken)] if taken else []))

    # Entering and leaving

    async def _enter(self, what: tuple[str, str]) -> float | None:
        key, uid = what
        server, pod = self._view.servers().get(key), self._candidates.get(key, {}).get(uid)
        if server is None or pod is None or not membership.may_enter(pod) or _settled(pod, key):
            return None
        try:
            await self._patch(pod, membership.entry(pod, server.model))
        except ApiError as error:
            if not error.gone and not error.stale:
                raise
            # Somebody else has changed the pod: the watch brings it as it is now, and with it another try.
        return None

    async def _let_go(self, seen: Document, server: Server) -> None:
        pod = await finalizers.current(self._api, seen)
        selector = server.model.spec.selector
        if pod is None or selector is None or objects.server_key(pod) != objects.server_key(seen):
            return  # it was let go before, which the watch has yet to bring
        if membership.selects(selector, objects.labels(pod)):
            return
        if objects.deleting(pod):
            return  # its drain is under way and ends with a release
        if not membership.is_leaving(pod):
            await self._patch(pod, membership.farewell(pod, moment=time.time()))
        elif not membership.may_enter(pod) or self._state(objects.uid(pod)) is EndpointState.DRAINED:
            await self._patch(pod, membership.exit_(pod))

    async def _patch(self, pod: Document, body: Document) -> None:
        await self._api.patch(objects.PODS, objects.namespace(pod), objects.name(pod), body)


def _settled(pod: Document, key: str) -> bool:
    return objects.server_key(pod) == key and membership.belongs(pod)


def _ambiguous(taken: list[Document]) -> Problem:
    told = ", ".join(f"{objects.name(pod)} (of {objects.server_key(pod)})" for pod in taken[:5])
    return Problem(
        "AmbiguousSelector",
        f"spec.selector matches {len(taken)} pods that belong to another InferenceServer and stay there: {told}. "
        "Make the selectors disjoint; to serve several models from one pod, name them all in one InferenceServer.",
    )
