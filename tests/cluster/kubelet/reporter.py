"""Write a pod's status to the API server: always the latest, nothing when nothing changed."""

import asyncio
import logging
from collections.abc import Callable

import aiohttp
from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.objects import Object
from tests.cluster.kubelet.status import as_patch, condition_is_true

RETRY_SECONDS = 0.5
NOT_FOUND = 404
log = logging.getLogger("kubelet.reporter")


class Reporter:
    """Sends `read()` whenever it was said to have changed."""

    def __init__(self, api: Api, pod_uid: str, path: str, read: Callable[[], Object]) -> None:
        self._api = api
        self._uid = pod_uid
        self._path = path
        self._read = read
        self._dirty = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._sent: Object | None = None

    def changed(self) -> None:
        """Say that the status may have changed."""
        self._dirty.set()

    def stored(self, status: Object) -> None:
        """Take the status as it is stored: what somebody else has made of Ready is written over, as the kubelet does.

        The node controller marks every pod of a node that it has not heard of for a while.
        """
        if self._sent is not None and condition_is_true(status, "Ready") != condition_is_true(self._sent, "Ready"):
            self._sent = None
        self._dirty.set()

    async def run(self) -> None:
        """Send until cancelled, or until the pod's object is gone."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.settle()

    async def settle(self) -> None:
        """Return when the present status has been sent, or the pod's object is gone."""
        while True:
            async with self._one_at_a_time:
                if await self._send():
                    return
            await asyncio.sleep(RETRY_SECONDS)

    async def _send(self) -> bool:
        status = self._read()
        if status == self._sent:
            return True
        try:
            await self._api.patch(self._path, as_patch(self._uid, status))
        except ApiError as error:
            log.warning("status of %s: %s", self._path, error)
            return error.code == NOT_FOUND
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("status of %s: %s", self._path, error)
            return False
        self._sent = status
        return True
