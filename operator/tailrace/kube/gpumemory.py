"""GPU memory and speed of a pod, from the labels of its node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tailrace.api.gpu import (
    DEFAULT_LABELS,
    GpuLabel,
    GpuMemory,
    UnknownGpuMemory,
    gpus_asked,
    pod_gpu_memory_gb,
    pod_gpu_tflops,
)
from tailrace.kube.client import Document


def gpu_tflops(pod: Document, labels: Mapping[str, str]) -> int | None:
    """Return the TFLOPS of all GPUs of the pod, None when they are not known."""
    return pod_gpu_tflops(labels, gpus_asked(pod.get("spec") or {}))


class Measurer:
    """Reads the well-known labels, and before them the ones that the administrator named (MiB per GPU)."""

    def __init__(self, more_labels: Sequence[str] = ()) -> None:
        resources = dict.fromkeys(label.resource for label in DEFAULT_LABELS)
        more = tuple(GpuLabel(resource, label, "MiB") for label in more_labels for resource in resources)
        self._labels = (*more, *DEFAULT_LABELS)

    def __call__(self, pod: Document, labels: Mapping[str, str]) -> int | None:
        """Return the memory of all GPUs of the pod in GB, None when it is not known."""
        found = self._measure(pod, labels)
        return found.gb if isinstance(found, GpuMemory) else None

    def explain(self, pod: Document, labels: Mapping[str, str]) -> str:
        """Return why the memory is not known and what to do; empty when it is."""
        found = self._measure(pod, labels)
        return "" if isinstance(found, GpuMemory) else found.reason

    def _measure(self, pod: Document, labels: Mapping[str, str]) -> GpuMemory | UnknownGpuMemory:
        return pod_gpu_memory_gb(labels, gpus_asked(pod.get("spec") or {}), self._labels)
