"""Why a pod goes away, as far as the objects around it tell. Pure, and best effort: it names a drain, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tailrace.core.model import DrainReason
from tailrace.kube import objects
from tailrace.kube.client import Document

_REVISION = "deployment.kubernetes.io/revision"


def departure(
    pod: Document, *, replica_sets: Iterable[Document], living: Callable[[str], int], wanted: int | None
) -> DrainReason:
    """Return the reason of a deletion that has just been seen.

    ``replica_sets`` are those of the same InferenceServer; ``living`` counts the pods of one of them (by uid) whose
    deletion has not begun; ``wanted`` is the server's replica count, None when it is gone or does not run the pods.
    """
    owner = objects.controller(pod) or {}
    known = {objects.uid(each): each for each in replica_sets}
    mine = known.get(str(owner.get("uid", "")))
    if mine is None:
        return DrainReason.DELETE
    if _superseded(mine, known.values()):
        return DrainReason.ROLLOUT
    asked = _asked(mine, wanted)
    enough = asked is not None and living(objects.uid(mine)) >= asked
    return DrainReason.SCALE_DOWN if enough else DrainReason.DELETE


def _superseded(mine: Document, replica_sets: Iterable[Document]) -> bool:
    owner = (objects.controller(mine) or {}).get("uid")
    siblings = [each for each in replica_sets if (objects.controller(each) or {}).get("uid") == owner]
    return any(_revision(each) > _revision(mine) for each in siblings)


def _revision(replica_set: Document) -> int:
    text = objects.annotations(replica_set).get(_REVISION, "")
    return objects.whole(text) or 0


def _asked(replica_set: Document, wanted: int | None) -> int | None:
    replicas = (replica_set.get("spec") or {}).get("replicas")
    counts = [count for count in (replicas, wanted) if count is not None]
    return min(counts) if counts and not objects.deleting(replica_set) else None
