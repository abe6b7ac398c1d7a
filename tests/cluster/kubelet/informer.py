"""Follow the pods of this kubelet's nodes: list, watch, and list again whenever the watch fails."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.objects import Object, uid

PODS = "/api/v1/pods"
ASSIGNED = "spec.nodeName!="
RETRY_SECONDS = 0.3
log = logging.getLogger("kubelet.informer")


class PodInformer:
    """Calls `seen(pod)` for every new version of a pod on `nodes`, and `gone(uid)` once it has vanished."""

    def __init__(
        self, api: Api, nodes: frozenset[str], seen: Callable[[Object], None], gone: Callable[[str], None]
    ) -> None:
        self._api = api
        self._nodes = nodes
        self._seen = seen
        self._gone = gone
        self._known: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled; failures of the API server are logged and survived."""
        while True:
            try:
                await self._follow(await self._list())
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.warning("watching pods failed, listing again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _list(self) -> str:
        answer = await self._api.get(PODS, fieldSelector=ASSIGNED)
        present = {uid(pod): pod for pod in answer["items"] if self._is_ours(pod)}
        for missing in self._known - present.keys():
            self._vanished(missing)
        for pod in present.values():
            self._noticed(pod)
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        while True:
            async for event in self._api.watch(PODS, fieldSelector=ASSIGNED, resourceVersion=version):
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), str(event["object"].get("message")))
                version = event["object"]["metadata"]["resourceVersion"]
                self._apply(event)

    def _apply(self, event: Mapping[str, Any]) -> None:
        pod = event["object"]
        if event["type"] == "BOOKMARK" or not self._is_ours(pod):
            return
        if event["type"] == "DELETED":
            self._vanished(uid(pod))
        else:
            self._noticed(pod)

    def _is_ours(self, pod: Object) -> bool:
        return pod["spec"].get("nodeName") in self._nodes

    def _noticed(self, pod: Object) -> None:
        self._known.add(uid(pod))
        self._seen(pod)

    def _vanished(self, pod_uid: str) -> None:
        self._known.discard(pod_uid)
        self._gone(pod_uid)
