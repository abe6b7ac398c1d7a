"""Takes our finalizer off pods that nobody will ever drain. Runs on the leader only.

Two kinds: pods whose InferenceServer is gone and that live on (adopted ones, or kept by ``--cascade=orphan``), and
pods that lost our label. Of the former those that are being deleted are not touched: their drain ends with a release.
"""

from __future__ import annotations

import time

from tailrace.api import names
from tailrace.kube import finalizers, membership, objects
from tailrace.kube.client import Api, ApiError, Document
from tailrace.kube.view import View


class Orphans:
    """Finds them at every resync, and frees those that were found for ``patience`` seconds.

    Patience, because the garbage collector deletes the pods of a deleted InferenceServer a moment later, and they are
    to be drained with their finalizer on.
    """

    def __init__(self, api: Api, view: View, patience: float) -> None:
        self._api = api
        self._view = view
        self._patience = patience
        self._found: dict[str, float] = {}

    def due(self) -> list[str]:
        """Return the uids of pods to be freed; call it after a full list."""
        now = time.monotonic()
        present = [objects.uid(pod) for pod in self._view.pods() if self._is_orphan(pod)]
        self._found = {uid: self._found.get(uid, now) for uid in present}
        return [uid for uid, since in self._found.items() if now - since >= self._patience]

    async def free(self, uid: str) -> float | None:
        """Free one pod if it still is an orphan. See ``WorkQueue``."""
        pod = self._view.pod(uid)
        if pod is None or not self._is_orphan(pod) or await self._server_exists(pod):
            return None
        if membership.ANNOTATION_ADOPTED in objects.annotations(pod):
            await self._api.patch(objects.PODS, objects.namespace(pod), objects.name(pod), membership.exit_(pod))
        else:
            await finalizers.take_off(self._api, pod)
        return None

    async def stray(self, seen: Document) -> Document | None:
        """Return the pod as it is now if it exists with our finalizer and without our label: nobody will drain it."""
        pod = await finalizers.current(self._api, seen)
        if pod is None or objects.server_key(pod) is not None:
            return None
        return pod if names.FINALIZER in objects.finalizers(pod) else None

    async def free_stray(self, pod: Document) -> None:
        """Free a pod that no watch of ours shows, whether it is being deleted or lives on."""
        await finalizers.take_off(self._api, pod)

    def _is_orphan(self, pod: Document) -> bool:
        return (
            objects.server_key(pod) not in self._view.servers()
            and names.FINALIZER in objects.finalizers(pod)
            and not objects.deleting(pod)
            and names.ANNOTATION_DRAINING not in objects.annotations(pod)
        )

    async def _server_exists(self, pod: Document) -> bool:
        namespace, _, name = (objects.server_key(pod) or "").partition("/")
        try:
            await self._api.get(objects.SERVERS, namespace, name)
        except ApiError as error:
            if error.gone:
                return False
            raise
        return True
