"""Marks a pod as draining, by hand or by its gate's call, durably, in its annotations; or takes the mark off."""

from __future__ import annotations

from tailrace.api import names
from tailrace.core.model import DrainReason
from tailrace.kube import objects
from tailrace.kube.client import Api, Document
from tailrace.link import Cordon, GateMark


async def mark(api: Api, pod: Document, cordon: Cordon, *, moment: float) -> None:
    """Write the mark. ApiError when the pod is gone, or another one has its name."""
    await api.patch(objects.PODS, objects.namespace(pod), objects.name(pod), change(pod, cordon, moment=moment))


async def mark_gate(api: Api, pod: Document, told: GateMark) -> None:
    """Write that the pod's gate holds this incarnation, unless it stands there. ApiError as in ``mark``."""
    if objects.annotations(pod).get(names.ANNOTATION_GATE_MARK) != told.incarnation:
        annotations = {names.ANNOTATION_GATE_MARK: told.incarnation}
        body = {"metadata": {"uid": objects.uid(pod), "annotations": annotations}}
        await api.patch(objects.PODS, objects.namespace(pod), objects.name(pod), body)


def change(pod: Document, cordon: Cordon, *, moment: float) -> Document:
    """Return the merge patch; the uid in it makes it fail for any other pod. ``moment`` is wall time."""
    marks: dict[str, str | None] = {
        names.ANNOTATION_DRAINING: str(cordon.generation),
        names.ANNOTATION_DRAIN_STARTED_AT: objects.timestamp(moment),
        names.ANNOTATION_DRAIN_REASON: DrainReason.MANUAL.value,
    }
    if not cordon.draining:
        marks = dict.fromkeys(marks)
    return {"metadata": {"uid": objects.uid(pod), "annotations": marks}}
