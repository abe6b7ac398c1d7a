"""Events that people see in ``kubectl describe``: fire and forget, and the same one not again within minutes."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import MANAGER, Api, ApiError, Document

log = logging.getLogger(__name__)

REPEAT_SECONDS = 600.0
MAX_PENDING = 200
MAX_MESSAGE = 1024


class Events:
    """Writes Events in the background; one that can't be written is dropped."""

    def __init__(self, api: Api, *, instance: str, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._api = api
        self._instance = instance
        self._monotonic = monotonic
        self._wall = wall
        self._said: dict[tuple[str, str, str], float] = {}
        self._pending: set[asyncio.Task[None]] = set()

    def say(self, about: Document, kind: str, reason: str, message: str, *, warning: bool = False) -> None:
        """Say something about an object; ``kind`` is Pod or InferenceServer."""
        if not self._is_news((objects.uid(about), reason, message)) or len(self._pending) >= MAX_PENDING:
            return
        body = event(about, kind, reason, message, warning=warning, instance=self._instance, moment=self._wall())
        task = asyncio.get_running_loop().create_task(self._write(body))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def _is_news(self, what: tuple[str, str, str]) -> bool:
        now = self._monotonic()
        self._said = {said: at for said, at in self._said.items() if now - at < REPEAT_SECONDS}
        if what in self._said:
            return False
        self._said[what] = now
        return True

    async def _write(self, body: Document) -> None:
        try:
            await self._api.create(objects.EVENTS, body["metadata"]["namespace"], body)
        except ApiError as error:
            log.info("event %s about %s: %s", body["reason"], body["regarding"]["name"], error)


def event(
    about: Document, kind: str, reason: str, message: str, *, warning: bool, instance: str, moment: float
) -> Document:
    """Return the Event. ``moment`` is wall time."""
    name, namespace = objects.name(about), objects.namespace(about)
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "eventTime": objects.micro_timestamp(moment),
        "reportingController": f"{names.PREFIX}/{MANAGER}",
        "reportingInstance": instance[:128],
        "action": reason,
        "reason": reason,
        "note": message[:MAX_MESSAGE],
        "type": "Warning" if warning else "Normal",
        "regarding": {
            "apiVersion": "v1" if kind == "Pod" else names.API_VERSION,
            "kind": kind,
            "name": name,
            "namespace": namespace,
            "uid": objects.uid(about),
        },
    }
