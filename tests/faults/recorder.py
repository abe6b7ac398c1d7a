"""Fills a history from what can be seen from outside: pods by a watch of its own, samples, the proxy, the engines."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import aiohttp
import orjson
from tests.cluster.clusters import Cluster
from tests.cluster.kubelet.api import Access, Api, ApiError
from tests.cluster.load import Record
from tests.faults.calls import Call
from tests.faults.history import (
    Acknowledged,
    Arrived,
    Begun,
    Ended,
    History,
    Left,
    PodGone,
    PodSeen,
    Sampled,
    Unfinalized,
)

from tailrace.api import names

KILL_MARGIN_SECONDS = 5.0
SAMPLE_SECONDS = 0.1
RETRY_SECONDS = 0.2
PORT = 8000
Document = dict[str, Any]


class Recorder:
    """Writes into `history`. `watch` and `sample` run until cancelled, the rest is called when there is something."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.history = History()
        self._access = Access.from_kubeconfig(cluster.kubeconfig)
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._known: dict[str, PodSeen] = {}

    async def watch(self) -> None:
        """Follow the pods of the namespace with the administrator's rights, past the proxy."""
        async with Api.connect(self._access) as api:
            while True:
                with suppress(ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError):
                    await self._follow(api)
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, api: Api) -> None:
        listing = await api.get(self._path)
        for uid in self._known.keys() - {pod["metadata"]["uid"] for pod in listing["items"]}:
            self._pod_gone(uid)
        for pod in listing["items"]:
            self._pod_seen(pod)
        async for event in api.watch(self._path, resourceVersion=listing["metadata"]["resourceVersion"]):
            if event["type"] == "ERROR":
                return
            if event["type"] == "DELETED":
                self._pod_gone(event["object"]["metadata"]["uid"])
            elif event["type"] != "BOOKMARK":
                self._pod_seen(event["object"])

    def _pod_seen(self, pod: Document) -> None:
        seen = pod_seen(pod, time.time())
        self._known[seen.uid] = seen
        self.history.add(seen)

    def _pod_gone(self, uid: str) -> None:
        self._known.pop(uid, None)
        self.history.add(PodGone(time.time(), uid))

    def forget(self, before: float) -> None:
        """Drop what happened before a moment, all but how the pods that exist were last seen."""
        kept = [*self._known.values(), *(one for one in self.history.happenings if one.at >= before)]
        self.history.happenings[:] = dict.fromkeys(kept)

    async def sample(self, admin: str) -> None:
        """Ask a replica again and again how its endpoints stand; while it is not ready it says nothing."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await self.sample_once(session, admin)
                await asyncio.sleep(SAMPLE_SECONDS)

    async def sample_once(self, session: aiohttp.ClientSession, admin: str) -> None:
        """Ask once."""
        async with session.get(f"{admin}/readyz") as ready:
            if ready.status != 200:
                return
        async with session.get(f"{admin}/endpoints") as answer:
            told = orjson.loads(await answer.read())
        now = time.time()
        states = {endpoint["uid"]: endpoint["state"] for endpoint in told["endpoints"]}
        self.history.add(Sampled(now, states, told["inFlight"]))
        self.history.add(*(Acknowledged(now, uid) for uid, state in states.items() if state in ("draining", "drained")))

    def committed(self, call: Call) -> None:
        """Take in a write that the API server has carried out."""
        if call.resource != "pods" or call.subresource or not isinstance(call.answer, dict):
            return
        uid = call.answer.get("metadata", {}).get("uid", "")
        removed = taken_off(call, self._known.get(uid))
        if removed:
            self.history.add(Unfinalized(call.answered_at, uid, removed))

    def requests(self, records: Iterable[Record]) -> None:
        """Take in what clients saw."""
        for record in records:
            self.history.add(Begun(record.started_at, record.id))
            if record.ended_at is not None:
                self.history.add(Ended(record.ended_at, record.id, record.complete, record.endpoint))

    def engines(self, lines: Iterable[Document]) -> None:
        """Take in what engines wrote down."""
        addresses: dict[int, str] = {}
        for line in lines:
            if line["event"] == "startup":
                addresses[line["pid"]] = f"{line['host']}:{line['port']}"
            elif line["event"] == "start":
                self.history.add(Arrived(line["time"], line["request_id"], addresses[line["pid"]]))
            elif line["event"] == "end":
                self.history.add(Left(line["time"], line["request_id"], addresses[line["pid"]]))


def pod_seen(pod: Document, at: float) -> PodSeen:
    """Return the pod as a happening."""
    meta, status = pod["metadata"], pod.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    address = status.get("podIP")
    return PodSeen(
        at,
        meta["uid"],
        meta["name"],
        f"{address}:{PORT}" if address else "",
        ready=conditions.get("Ready") == "True" and "deletionTimestamp" not in meta,
        finalizers=tuple(meta.get("finalizers") or ()),
        deadline=drain_deadline(meta),
    )


def drain_deadline(meta: Document) -> float | None:
    """Return when the drain of a pod must be over, from its own metadata; None while nobody has deleted it."""
    if "deletionTimestamp" not in meta:
        return None
    grace = float(meta.get("deletionGracePeriodSeconds") or 0)
    said = meta.get("annotations") or {}
    timeout = float(said.get(names.ANNOTATION_DRAIN_TIMEOUT, grace))
    shutdown = float(said.get(names.ANNOTATION_DRAIN_SHUTDOWN, 0))
    began = datetime.datetime.fromisoformat(meta["deletionTimestamp"]).timestamp() - grace
    return began + max(0.0, min(timeout, grace - shutdown - KILL_MARGIN_SECONDS))


def taken_off(call: Call, before: PodSeen | None) -> tuple[str, ...]:
    """Return the finalizers that a patch of a pod has removed.

    A JSON patch names them in its own test; one that does not is told by what is missing since the pod was last seen.
    """
    if isinstance(call.body, list):
        tested = {step["path"]: step["value"] for step in call.body if step["op"] == "test"}
        removed = [step["path"] for step in call.body if step["op"] == "remove"]
        return tuple(str(tested.get(path, path)) for path in removed if path.startswith("/metadata/finalizers"))
    left = call.answer["metadata"].get("finalizers") or ()
    return tuple(one for one in (before.finalizers if before else ()) if one not in left)
