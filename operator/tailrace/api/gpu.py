"""GPU memory of a pod, from the labels of its node and the GPUs that it asks for.

Memory is told in GB as it is marketed: nodes report a little less (firmware takes its part), people write 80.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MARKETED: Final = (16, 24, 32, 40, 48, 80, 94, 96, 141, 180, 192, 288)
MIB: Final = 2**20
UNITS: Final = {"B": 1, "K": 2**10, "M": 2**20, "MIB": 2**20, "G": 2**30, "GIB": 2**30, "T": 2**40}

NVIDIA: Final = "nvidia.com/gpu"
PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
SHARING_LABEL: Final = "nvidia.com/gpu.sharing-strategy"
REPLICAS_LABEL: Final = "nvidia.com/gpu.replicas"
MIG_RESOURCE: Final = "nvidia.com/mig-"
SHARED_RESOURCE: Final = "nvidia.com/gpu.shared"
VIRTUAL: Final = re.compile(r"-[0-9]+[ABCQ]$")
"""How the product name of a virtual GPU ends: it has a part of the card's memory."""

ADVICE: Final = "set spec.gpuMemoryGB"

PRODUCTS: Final = (
    # The longer name first. GH200-480GB names the memory of its CPU.
    ("GH200-480GB", 96),
    ("H100-NVL", 94),
    ("H100-96GB", 96),
    ("GB300", 288),
    ("GB200", 192),
    ("B300", 288),
    ("B200", 180),
    ("H200", 141),
    ("H20", 96),
    ("H100", 80),
    ("H800", 80),
    ("A100-80GB", 80),
    ("A100-64GB", 64),
    ("A100-40GB", 40),
    ("A800-80GB", 80),
    ("A800-40GB", 40),
    ("V100-32GB", 32),
    ("V100-16GB", 16),
    ("L40S", 48),
    ("L40", 48),
    ("L4", 24),
    ("A40", 48),
    ("A30", 24),
    ("A10G", 24),
    ("A10", 24),
    ("A16", 16),
    ("A2", 16),
    ("T4", 16),
    ("A6000", 48),
    ("RTX-6000-ADA", 48),
    ("RTX-PRO-6000", 96),
    ("RTX-5090", 32),
    ("RTX-4090", 24),
    ("RTX-3090", 24),
)
"""Words that must all occur in nvidia.com/gpu.product (between dashes, in any order), and the memory in GB."""


TFLOPS: Final = (
    # The longer name first, as above; dense FP16 with tensor cores, from the data sheets.
    ("GB200", 2500),
    ("B200", 2250),
    ("H200", 989),
    ("H20", 148),
    ("H100-NVL", 835),
    ("H100-PCIE", 756),
    ("H100", 989),
    ("H800", 989),
    ("A100", 312),
    ("A800", 312),
    ("V100", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("A40", 150),
    ("A30", 165),
    ("A10", 125),
    ("T4", 65),
)
"""Words that must all occur as parts of nvidia.com/gpu.product, and the TFLOPS of one GPU."""


@dataclass(frozen=True, slots=True)
class GpuLabel:
    """A node label that tells the memory of one GPU of `resource`; `unit` counts when the value names none."""

    resource: str
    label: str
    unit: str


DEFAULT_LABELS: Final = (
    GpuLabel(NVIDIA, "nvidia.com/gpu.memory", "MiB"),
    GpuLabel("amd.com/gpu", "amd.com/gpu.vram", "G"),
    GpuLabel("amd.com/gpu", "beta.amd.com/gpu.vram", "G"),
    GpuLabel("gpu.intel.com/i915", "gpu.intel.com/memory.max", "B"),
    GpuLabel("gpu.intel.com/xe", "gpu.intel.com/memory.max", "B"),
)
"""GPU feature discovery, AMD's node labeller (new and old prefix), Intel's; the list is a setting."""


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What a pod asks for: (resource, number) pairs that may be GPUs, and whether it has resource claims (DRA)."""

    resources: tuple[tuple[str, int], ...] = ()
    claims: bool = False


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """GPU memory of one pod: `gb` in all, `gpus` of `gb_each`, and the label that told."""

    gb: int
    gpus: int
    gb_each: int
    label: str


@dataclass(frozen=True, slots=True)
class UnknownGpuMemory:
    """Why the memory can't be told, and what to do: a sentence for a condition."""

    reason: str


def marketed_gb(mib: int) -> int:
    """Round MiB to the marketed GB: up to whole GiB, then up to a usual size that is at most a tenth more.

    81559 is 80, 15360 is 16, 23034 is 24; 12288 stays 12. `ValueError` for fewer than 1 MiB.
    """
    if mib < 1:
        raise ValueError(f"{mib} MiB is no GPU memory")
    whole = -(-mib // 1024)
    return next((size for size in MARKETED if whole <= size and size * 10 <= whole * 11), whole)


def gpus_asked(pod_spec: Mapping[str, Any]) -> GpuRequest:
    """Read what a pod's `spec` asks for: containers and native sidecars together, since they run side by side."""
    containers = [*_parts(pod_spec, "containers"), *filter(_is_sidecar, _parts(pod_spec, "initContainers"))]
    asked: Counter[str] = Counter()
    for container in containers:
        asked.update(_extended(container))
    return GpuRequest(tuple(sorted(asked.items())), bool(pod_spec.get("resourceClaims")))


def _parts(pod_spec: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    return list(pod_spec.get(field) or ())


def _is_sidecar(container: Mapping[str, Any]) -> bool:
    return container.get("restartPolicy") == "Always"


def _extended(container: Mapping[str, Any]) -> dict[str, int]:
    """Keep extended resources: a domain in the name, and a whole number that is request and limit at once."""
    limits = (container.get("resources") or {}).get("limits") or {}
    return {name: int(count) for name, count in limits.items() if "/" in name and str(count).isdecimal() and int(count)}


def pod_gpu_memory_gb(
    node_labels: Mapping[str, str], asked: GpuRequest, labels: Iterable[GpuLabel] = DEFAULT_LABELS
) -> GpuMemory | UnknownGpuMemory:
    """GPU memory of a pod on a node with `node_labels`: memory of one GPU times the GPUs that the pod asks for.

    Parts of a GPU (MIG, time slicing, MPS, virtual GPUs) and devices by claim can't be told from labels.
    """
    rows = tuple(labels)
    known = {row.resource for row in rows} | {NVIDIA}
    gpus = [(resource, count) for resource, count in asked.resources if resource in known]
    obstacle = _obstacle(asked, gpus)
    if obstacle:
        return UnknownGpuMemory(f"{obstacle}; {ADVICE}")
    ((resource, count),) = gpus
    return _whole_gpus(node_labels, resource, count, [row for row in rows if row.resource == resource])


def _obstacle(asked: GpuRequest, gpus: list[tuple[str, int]]) -> str:
    """Say why the request itself does not tell which whole GPUs the pod has; empty when it does."""
    parts = [name for name, _ in asked.resources if name == SHARED_RESOURCE or name.startswith(MIG_RESOURCE)]
    if asked.claims:
        return "the pod takes its devices by resource claim, which no node label describes"
    if parts:
        return f"the pod asks for a part of a GPU ({parts[0]}), and the node's labels describe whole ones"
    if len(gpus) > 1:
        return f"the pod asks for GPUs of several kinds ({', '.join(name for name, _ in gpus)})"
    return "" if gpus else "the pod asks for no GPU that is known"


def _whole_gpus(
    node_labels: Mapping[str, str], resource: str, count: int, rows: list[GpuLabel]
) -> GpuMemory | UnknownGpuMemory:
    shared = _sharing(node_labels) if resource == NVIDIA else ""
    if shared:
        return UnknownGpuMemory(f"{shared}; {ADVICE}")
    for row in rows:
        mib = _mib(node_labels.get(row.label, ""), row.unit)
        if mib:
            return _times(marketed_gb(mib), count, row.label)
    product = _product_gb(node_labels.get(PRODUCT_LABEL, "")) if resource == NVIDIA else None
    if product:
        return _times(product, count, PRODUCT_LABEL)
    wanted = dict.fromkeys([row.label for row in rows] + ([PRODUCT_LABEL] if resource == NVIDIA else []))
    return UnknownGpuMemory(f"the node tells no GPU memory by the label {' or '.join(wanted)}; add it, or {ADVICE}")


def _times(each: int, count: int, label: str) -> GpuMemory:
    return GpuMemory(gb=each * count, gpus=count, gb_each=each, label=label)


def _sharing(node_labels: Mapping[str, str]) -> str:
    strategy = node_labels.get(SHARING_LABEL, "none")
    product = node_labels.get(PRODUCT_LABEL, "")
    if strategy not in {"none", ""}:
        return f"the node shares its GPUs between pods ({SHARING_LABEL}={strategy})"
    if node_labels.get(REPLICAS_LABEL, "1") not in {"0", "1"}:
        return f"the node shares its GPUs between pods ({REPLICAS_LABEL}={node_labels[REPLICAS_LABEL]})"
    if product.endswith("-SHARED") or "-MIG-" in product or VIRTUAL.search(product):
        return f"the node offers parts of GPUs ({PRODUCT_LABEL}={product})"
    return ""


def _mib(value: str, unit: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,20}) ?([A-Za-z]*)", value)
    factor = UNITS.get((match[2] or unit).upper()) if match else None
    if not match or not factor:
        return None
    return int(match[1]) * factor // MIB or None


def pod_gpu_tflops(node_labels: Mapping[str, str], asked: GpuRequest) -> int | None:
    """Dense FP16 TFLOPS of the whole NVIDIA GPUs that a pod asks for on such a node; None when it can't be told."""
    count = dict(asked.resources).get(NVIDIA, 0)
    if not count or asked.claims or _sharing(node_labels):
        return None
    words = set(node_labels.get(PRODUCT_LABEL, "").upper().split("-"))
    each = next((tflops for name, tflops in TFLOPS if words.issuperset(name.split("-"))), None)
    return None if each is None else each * count


def _product_gb(product: str) -> int | None:
    words = set(product.upper().split("-"))
    return next((gb for name, gb in PRODUCTS if words.issuperset(name.split("-"))), None)
