"""Taking our finalizer off a pod: exactly our own entry, of exactly that pod. The patch is pure."""

from __future__ import annotations

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document, PatchType


def removal(pod: Document) -> list[Document] | None:
    """Return the JSON patch that removes our finalizer from the pod as it was seen, None when it has none of ours."""
    finalizers = objects.finalizers(pod)
    if names.FINALIZER not in finalizers:
        return None
    path = f"/metadata/finalizers/{finalizers.index(names.FINALIZER)}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": objects.uid(pod)},
        {"op": "test", "path": path, "value": names.FINALIZER},
        {"op": "remove", "path": path},
    ]


async def take_off(api: Api, pod: Document) -> bool:
    """Remove our finalizer from the pod; return whether it was this call that did.

    A failed guard means that the pod was seen too long ago: it is read again and tried once more. ApiError means
    that nothing is known and the caller should come back.
    """
    namespace, name = objects.namespace(pod), objects.name(pod)
    for last_try in (False, True):
        patch = removal(pod)
        if patch is None:
            return False
        try:
            await api.patch(objects.PODS, namespace, name, patch, how=PatchType.JSON)
        except ApiError as error:
            if error.gone:
                return False
            if last_try or not error.stale:
                raise
            fresh = await current(api, pod)
            if fresh is None:
                return False
            pod = fresh
        else:
            return True
    return False


async def current(api: Api, pod: Document) -> Document | None:
    """Return the pod as it is now, None when it is gone or another one has its name."""
    try:
        found = await api.get(objects.PODS, objects.namespace(pod), objects.name(pod))
    except ApiError as error:
        if error.gone:
            return None
        raise
    return found if objects.uid(found) == objects.uid(pod) else None
