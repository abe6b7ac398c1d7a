"""Which pods belong to an InferenceServer with a selector, and how they enter and leave. Pure.

A pod enters in one patch: label, finalizer and the drain's figures. It leaves in two: first it is marked as leaving,
which drains it like a manual drain; when it has drained, everything of ours is taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tailrace.api import names
from tailrace.api.inferenceserver import InferenceServer, LabelOperator, Selector, SelectorRequirement
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.injection import ANNOTATION_PORT

ANNOTATION_ADOPTED: Final = f"{names.PREFIX}/adopted"
ANNOTATION_LEAVING: Final = f"{names.PREFIX}/leaving"
MARKS: Final = (
    ANNOTATION_ADOPTED,
    ANNOTATION_LEAVING,
    ANNOTATION_PORT,
    names.ANNOTATION_DRAINING,
    names.ANNOTATION_DRAIN_STARTED_AT,
    names.ANNOTATION_DRAIN_REASON,
    names.ANNOTATION_DRAIN_TIMEOUT,
    names.ANNOTATION_DRAIN_SETTLE,
    names.ANNOTATION_DRAIN_SHUTDOWN,
)

_HOLDS: Final[dict[LabelOperator, Callable[[str | None, tuple[str, ...]], bool]]] = {
    LabelOperator.IN: lambda value, values: value in values,
    LabelOperator.NOT_IN: lambda value, values: value not in values,
    LabelOperator.EXISTS: lambda value, _: value is not None,
    LabelOperator.DOES_NOT_EXIST: lambda value, _: value is None,
}
_WRITTEN: Final[dict[LabelOperator, str]] = {
    LabelOperator.IN: "{key} in ({values})",
    LabelOperator.NOT_IN: "{key} notin ({values})",
    LabelOperator.EXISTS: "{key}",
    LabelOperator.DOES_NOT_EXIST: "!{key}",
}


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a pod with these labels belongs to the server."""
    exact = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return exact and all(
        _HOLDS[term.operator](labels.get(term.key), term.values) for term in selector.match_expressions
    )


def query(selector: Selector) -> str:
    """Return the selector as the API server's lists and watches want it."""
    exact = [f"{key}={value}" for key, value in selector.match_labels.items()]
    return ",".join([*exact, *(_written(term) for term in selector.match_expressions)])


def _written(term: SelectorRequirement) -> str:
    return _WRITTEN[term.operator].format(key=term.key, values=",".join(term.values))


def may_enter(pod: Document) -> bool:
    """Whether a pod can be adopted: a finalizer can't be added once deletion has begun, or matter once it has ended."""
    return not objects.deleting(pod) and (pod.get("status") or {}).get("phase") not in objects.TERMINAL_PHASES


def belongs(pod: Document) -> bool:
    """Whether the pod has all that adoption gives, so that nothing is to be done."""
    return names.FINALIZER in objects.finalizers(pod) and not is_leaving(pod)


def is_leaving(pod: Document) -> bool:
    """Whether the pod is marked as leaving."""
    return ANNOTATION_LEAVING in objects.annotations(pod)


def entry(pod: Document, server: InferenceServer) -> Document:
    """Return the merge patch that adopts the pod; it fails if the pod is not as it was seen."""
    drain, finalizers = server.spec.drain, objects.finalizers(pod)
    marks: dict[str, str | None] = {
        ANNOTATION_ADOPTED: "true",
        ANNOTATION_PORT: str(server.spec.port),
        names.ANNOTATION_DRAIN_TIMEOUT: str(drain.timeout_seconds),
        names.ANNOTATION_DRAIN_SETTLE: str(drain.settle_seconds),
        names.ANNOTATION_DRAIN_SHUTDOWN: str(drain.shutdown_seconds),
    }
    if is_leaving(pod):
        cancelled = (
            ANNOTATION_LEAVING,
            names.ANNOTATION_DRAINING,
            names.ANNOTATION_DRAIN_STARTED_AT,
            names.ANNOTATION_DRAIN_REASON,
        )
        marks |= dict.fromkeys(cancelled)
    return _guarded(
        pod,
        labels={names.LABEL_SERVER: server.metadata.name},
        annotations=marks,
        finalizers=finalizers + [names.FINALIZER] * (names.FINALIZER not in finalizers),
    )


def farewell(pod: Document, *, moment: float) -> Document:
    """Return the merge patch that marks the pod as leaving; ``moment`` is wall time."""
    marks = {
        ANNOTATION_LEAVING: "true",
        names.ANNOTATION_DRAINING: str(int(moment)),
        names.ANNOTATION_DRAIN_STARTED_AT: objects.timestamp(moment),
        names.ANNOTATION_DRAIN_REASON: "manual",
    }
    return _guarded(pod, annotations=marks)


def exit_(pod: Document) -> Document:
    """Return the merge patch that takes everything of ours off the pod."""
    marks = dict.fromkeys(mark for mark in MARKS if mark in objects.annotations(pod))
    finalizers = [finalizer for finalizer in objects.finalizers(pod) if finalizer != names.FINALIZER]
    return _guarded(pod, labels={names.LABEL_SERVER: None}, annotations=marks, finalizers=finalizers)


def _guarded(pod: Document, **changed: object) -> Document:
    meta = objects.meta(pod)
    return {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], **changed}}
