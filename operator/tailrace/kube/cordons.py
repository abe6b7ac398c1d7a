"""Marks a pod as draining, by hand or by its gate's call, durably, in its annotations; or takes the mark off."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from tailrace.api import names
from tailrace.core.model import DrainReason
from tailrace.kube import finalizers, objects, podstate
from tailrace.kube.client import Api, ApiError, Document
from tailrace.kube.queue import WorkQueue
from tailrace.kube.view import View
from tailrace.link import Cordon, GateMark

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0


class Cordons:
    """Keeps the last word on every pod, and tries until it is written; ``written`` is told of each that is settled.

    A word is settled too when the pod says as much or something newer, when a newer word came, or when the pod is gone.
    """

    def __init__(self, api: Api, view: View, written: Callable[[Cordon], Awaitable[None]]) -> None:
        self._api = api
        self._view = view
        self._written = written
        self._words: dict[str, Cordon] = {}
        self._overtaken: list[Cordon] = []
        self._open: set[str] = set()
        self._listed = False
        self._queue: WorkQueue[str] = WorkQueue("cordon", self._work, last_delay=RETRY_SECONDS)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run()

    def take(self, cordon: Cordon) -> None:
        """Take a word; one that is older than the last about its pod changes nothing, one that is repeated neither."""
        known = self._words.get(cordon.uid)
        if known is not None and cordon.generation < known.generation:
            self._overtaken.append(cordon)
        else:
            self._words[cordon.uid] = cordon
            self._open.add(cordon.uid)
        if cordon == known:
            self._queue.offer(cordon.uid)
        else:
            self._queue.add(cordon.uid)

    def resynced(self) -> None:
        """Have a look at what is open: there was a full list, so a pod that is not known is gone."""
        self._listed = True
        for uid in self._words:
            if uid in self._open or self._view.pod(uid) is None:
                self._queue.offer(uid)

    async def _work(self, uid: str) -> float | None:
        while self._overtaken:
            await self._written(self._overtaken.pop())
        cordon, pod = self._words.get(uid), self._view.pod(uid)
        if cordon is None or (pod is None and not self._listed):
            return None
        if pod is None:
            log.info("cordon %s: there is no such pod", uid)
            del self._words[uid]
        elif uid in self._open:
            await self._write(pod, cordon)
        if self._words.get(uid) in (None, cordon):
            self._open.discard(uid)
        await self._written(cordon)
        return None

    async def _write(self, pod: Document, cordon: Cordon) -> None:
        try:
            await mark(self._api, pod, cordon, moment=time.time())
        except ApiError as error:
            what = "drain" if cordon.draining else "end of the drain"
            log.warning("the %s by hand of pod %s is not written down yet: %s", what, objects.key(pod), error)
            raise


async def mark(api: Api, seen: Document, cordon: Cordon, *, moment: float) -> None:
    """Write the mark, or take it off, unless the pod is gone or says as much already. ApiError: try again."""
    pod = await finalizers.current(api, seen)
    body = change(pod, cordon, moment=moment) if pod is not None else None
    if body is not None:
        await api.patch(objects.PODS, objects.namespace(seen), objects.name(seen), body)


async def mark_gate(api: Api, pod: Document, told: GateMark) -> None:
    """Write that the pod's gate holds this incarnation, unless it stands there. ApiError as in ``mark``."""
    if objects.annotations(pod).get(names.ANNOTATION_GATE_MARK) != told.incarnation:
        annotations = {names.ANNOTATION_GATE_MARK: told.incarnation}
        body = {"metadata": {"uid": objects.uid(pod), "annotations": annotations}}
        await api.patch(objects.PODS, objects.namespace(pod), objects.name(pod), body)


def change(pod: Document, cordon: Cordon, *, moment: float) -> Document | None:
    """Return the merge patch, None when the pod says as much or something newer. ``moment`` is wall time.

    The patch fails when the pod is not as it was seen, so that nothing older can overtake what is newer.
    """
    standing = podstate.cordon(pod)
    if cordon.draining:
        due = standing is None or standing < cordon.generation
    else:
        due = standing is not None and standing <= cordon.generation
    marks: dict[str, str | None] = {
        names.ANNOTATION_DRAINING: str(cordon.generation),
        names.ANNOTATION_DRAIN_STARTED_AT: objects.timestamp(moment),
        names.ANNOTATION_DRAIN_REASON: DrainReason.MANUAL.value,
    }
    if not cordon.draining:
        marks = dict.fromkeys(marks)
    meta = objects.meta(pod)
    guard = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return {"metadata": {**guard, "annotations": marks}} if due else None
