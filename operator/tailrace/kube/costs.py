"""The deletion cost of pods: when replicas go away, the idlest ones go. Best effort."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final

from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document

log = logging.getLogger(__name__)

COST: Final = "controller.kubernetes.io/pod-deletion-cost"
AT_ONCE = 16


def changes(pods: Iterable[Document], in_flight: Mapping[str, int]) -> list[tuple[Document, str]]:
    """Return the pods whose cost (requests in flight by uid; no cost is 0) is not what it should be, and the cost."""
    living = [pod for pod in pods if not objects.deleting(pod)]
    wanted = [(pod, str(in_flight.get(objects.uid(pod), 0))) for pod in living]
    return [(pod, cost) for pod, cost in wanted if objects.annotations(pod).get(COST, "0") != cost]


async def write(api: Api, costs: Iterable[tuple[Document, str]]) -> None:
    """Write the costs; a pod where that fails keeps the old one."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Document, cost: str) -> None:
        body = {"metadata": {"uid": objects.uid(pod), "annotations": {COST: cost}}}
        async with room:
            try:
                await api.patch(objects.PODS, objects.namespace(pod), objects.name(pod), body)
            except ApiError as error:
                log.info("deletion cost of %s: %s", objects.key(pod), error)

    await asyncio.gather(*(one(pod, cost) for pod, cost in costs))
