"""GPU memory as people know it, from what nodes report."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.api.gpu import (
    DEFAULT_LABELS,
    MARKETED,
    GpuLabel,
    GpuMemory,
    GpuRequest,
    UnknownGpuMemory,
    gpus_asked,
    marketed_gb,
    pod_gpu_memory_gb,
    pod_gpu_tflops,
)

ONE = GpuRequest((("nvidia.com/gpu", 1),))
FOUR = GpuRequest((("nvidia.com/gpu", 4),))

REPORTED = {
    "T4": (15360, 16),
    "T4 with ECC": (15109, 16),
    "V100 16": (16160, 16),
    "V100 32": (32510, 32),
    "L4": (23034, 24),
    "A10G": (23028, 24),
    "RTX 4090": (24564, 24),
    "A100 40": (40960, 40),
    "A100 40, a little less": (40536, 40),
    "L40S": (46068, 48),
    "A6000": (49140, 48),
    "A100 80": (81920, 80),
    "H100": (81559, 80),
    "H100 NVL": (95830, 94),
    "GH200": (97871, 96),
    "H200": (143771, 141),
    "B200": (183359, 180),
    "MI300X": (196592, 192),
    "B300": (275040, 288),
    "12 GB stays": (12288, 12),
    "64 GB stays": (65536, 64),
    "1 MiB": (1, 1),
    "one above 16": (16385, 17),
    "a tenth below 80": (74 * 1024, 80),
    "more than a tenth below 80": (72 * 1024, 72),
    "above all": (300 * 1024, 300),
}


@pytest.mark.parametrize(("mib", "gb"), REPORTED.values(), ids=REPORTED)
def test_reported_memory_is_rounded_to_what_is_marketed(mib: int, gb: int) -> None:
    assert marketed_gb(mib) == gb


@given(st.integers(1, 2**20))
def test_rounding_goes_up_by_at_most_a_tenth(mib: int) -> None:
    whole = -(-mib // 1024)
    assert whole <= marketed_gb(mib) <= whole * 1.1 + 1e-9
    assert marketed_gb(mib) in {whole, *MARKETED}


@given(st.integers(1, 2**20), st.integers(1, 2**20))
def test_more_memory_is_never_marketed_as_less(one: int, other: int) -> None:
    assert marketed_gb(min(one, other)) <= marketed_gb(max(one, other))


def test_no_memory_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 MiB is no GPU memory"):
        marketed_gb(0)


TOLD: dict[str, tuple[dict[str, str], GpuRequest, int]] = {
    "one H100": ({"nvidia.com/gpu.memory": "81559"}, ONE, 80),
    "four H100": ({"nvidia.com/gpu.memory": "81559"}, FOUR, 320),
    "memory before product": (
        {"nvidia.com/gpu.memory": "40960", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        ONE,
        40,
    ),
    "product when memory is nonsense": (
        {"nvidia.com/gpu.memory": "lots", "nvidia.com/gpu.product": "Tesla-T4"},
        ONE,
        16,
    ),
    "not shared": ({"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.sharing-strategy": "none"}, ONE, 80),
    "one replica": ({"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.replicas": "1"}, ONE, 80),
    "AMD": ({"amd.com/gpu.vram": "64G"}, GpuRequest((("amd.com/gpu", 2),)), 128),
    "AMD, old prefix": ({"beta.amd.com/gpu.vram": "191G"}, GpuRequest((("amd.com/gpu", 1),)), 192),
    "Intel": ({"gpu.intel.com/memory.max": "17179869184"}, GpuRequest((("gpu.intel.com/i915", 1),)), 16),
    "Intel, new driver": ({"gpu.intel.com/memory.max": "17179869184"}, GpuRequest((("gpu.intel.com/xe", 1),)), 16),
    "other devices do not matter": (
        {"nvidia.com/gpu.memory": "23034"},
        GpuRequest((("example.com/nic", 4), ("nvidia.com/gpu", 1))),
        24,
    ),
}


@pytest.mark.parametrize(("labels", "asked", "gb"), TOLD.values(), ids=TOLD)
def test_the_labels_of_the_node_tell_the_memory_of_the_pod(labels: dict[str, str], asked: GpuRequest, gb: int) -> None:
    found = pod_gpu_memory_gb(labels, asked)
    assert isinstance(found, GpuMemory), found
    assert found.gb == gb == found.gpus * found.gb_each
    assert found.label in labels


PRODUCTS = {
    "NVIDIA-H100-80GB-HBM3": 80,
    "NVIDIA-H100-PCIe": 80,
    "NVIDIA-H100-NVL": 94,
    "NVIDIA-H200": 141,
    "NVIDIA-H20": 96,
    "NVIDIA-B200": 180,
    "NVIDIA-GB200": 192,
    "NVIDIA-GH200-480GB": 96,
    "NVIDIA-A100-SXM4-40GB": 40,
    "NVIDIA-A100-PCIE-40GB": 40,
    "NVIDIA-A100-SXM4-80GB": 80,
    "NVIDIA-A100-80GB-PCIe": 80,
    "NVIDIA-L4": 24,
    "NVIDIA-L40S": 48,
    "NVIDIA-A10G": 24,
    "NVIDIA-A10": 24,
    "Tesla-T4": 16,
    "Tesla-V100-SXM2-16GB": 16,
    "Tesla-V100-SXM3-32GB": 32,
    "NVIDIA-RTX-A6000": 48,
    "NVIDIA-RTX-6000-Ada-Generation": 48,
    "NVIDIA-GeForce-RTX-4090": 24,
}


@pytest.mark.parametrize(("product", "gb"), PRODUCTS.items())
def test_the_product_tells_when_the_memory_does_not(product: str, gb: int) -> None:
    found = pod_gpu_memory_gb({"nvidia.com/gpu.product": product}, ONE)
    assert found == GpuMemory(gb, 1, gb, "nvidia.com/gpu.product")


H100 = {"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
UNTOLD: dict[str, tuple[dict[str, str], GpuRequest, str]] = {
    "no labels": ({}, ONE, "nvidia.com/gpu.memory or nvidia.com/gpu.product"),
    "a product that has two sizes": ({"nvidia.com/gpu.product": "NVIDIA-A100-X"}, ONE, "nvidia.com/gpu.memory"),
    "AMD without labels": (H100, GpuRequest((("amd.com/gpu", 1),)), "amd.com/gpu.vram or beta.amd.com/gpu.vram"),
    "no GPU asked": (H100, GpuRequest(), "asks for no GPU"),
    "only other devices": (H100, GpuRequest((("example.com/nic", 1),)), "asks for no GPU"),
    "MIG": (H100, GpuRequest((("nvidia.com/mig-1g.10gb", 1),)), "a part of a GPU (nvidia.com/mig-1g.10gb)"),
    "MIG, one strategy": (
        {**H100, "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"},
        ONE,
        "parts of GPUs",
    ),
    "time slicing": ({**H100, "nvidia.com/gpu.sharing-strategy": "time-slicing"}, ONE, "shares its GPUs"),
    "MPS": ({**H100, "nvidia.com/gpu.sharing-strategy": "mps"}, ONE, "shares its GPUs"),
    "replicas": ({**H100, "nvidia.com/gpu.replicas": "4"}, ONE, "nvidia.com/gpu.replicas=4"),
    "shared product": ({**H100, "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-SHARED"}, ONE, "parts of GPUs"),
    "shared resource": (H100, GpuRequest((("nvidia.com/gpu.shared", 1),)), "a part of a GPU"),
    "virtual": ({"nvidia.com/gpu.product": "NVIDIA-L40S-12Q"}, ONE, "parts of GPUs"),
    "claims": (H100, GpuRequest((("nvidia.com/gpu", 1),), claims=True), "resource claim"),
    "two kinds": (H100, GpuRequest((("amd.com/gpu", 1), ("nvidia.com/gpu", 1))), "several kinds"),
}


@pytest.mark.parametrize(("labels", "asked", "said"), UNTOLD.values(), ids=UNTOLD)
def test_what_can_not_be_told_says_why_and_what_to_set(labels: dict[str, str], asked: GpuRequest, said: str) -> None:
    found = pod_gpu_memory_gb(labels, asked)
    assert isinstance(found, UnknownGpuMemory), found
    assert said in found.reason
    assert found.reason.endswith("set spec.gpuMemoryGB")


def test_the_list_of_labels_can_be_another() -> None:
    labels = (GpuLabel("example.com/gpu", "example.com/memory", "G"), *DEFAULT_LABELS)
    found = pod_gpu_memory_gb({"example.com/memory": "80"}, GpuRequest((("example.com/gpu", 2),)), labels)
    assert found == GpuMemory(160, 2, 80, "example.com/memory")


def container(count: object, **more: str) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {"nvidia.com/gpu": count, "memory": "8Gi"}}, **more}


@pytest.mark.parametrize(
    ("pod", "asked"),
    [
        ({}, ()),
        ({"containers": [{"name": "c"}]}, ()),
        ({"containers": [container("2"), container(1)]}, (("nvidia.com/gpu", 3),)),
        ({"containers": [container("0")]}, ()),
        ({"containers": [container("1")], "initContainers": [container("8")]}, (("nvidia.com/gpu", 1),)),
        ({"containers": [], "initContainers": [container("8", restartPolicy="Always")]}, (("nvidia.com/gpu", 8),)),
    ],
)
def test_a_pod_asks_for_what_its_running_containers_ask_for(pod: dict[str, Any], asked: object) -> None:
    assert gpus_asked(pod) == GpuRequest(asked)  # type: ignore[arg-type]


SPEEDS: dict[str, tuple[str, GpuRequest, int | None]] = {
    "A100": ("NVIDIA-A100-SXM4-40GB", ONE, 312),
    "four H100": ("NVIDIA-H100-80GB-HBM3", FOUR, 4 * 989),
    "H100 on PCIe": ("NVIDIA-H100-PCIe", ONE, 756),
    "T4": ("Tesla-T4", ONE, 65),
    "nobody knows": ("NVIDIA-Z1", ONE, None),
    "no label": ("", ONE, None),
    "shared": ("NVIDIA-A100-SXM4-40GB-SHARED", ONE, None),
    "no GPU": ("Tesla-T4", GpuRequest(()), None),
    "claims": ("Tesla-T4", GpuRequest((("nvidia.com/gpu", 1),), claims=True), None),
}


@pytest.mark.parametrize(("product", "asked", "tflops"), SPEEDS.values(), ids=SPEEDS)
def test_the_product_tells_the_speed_of_whole_gpus(product: str, asked: GpuRequest, tflops: int | None) -> None:
    assert pod_gpu_tflops({"nvidia.com/gpu.product": product}, asked) == tflops


def test_a_resource_claim_is_seen() -> None:
    assert gpus_asked({"containers": [], "resourceClaims": [{"name": "gpu"}]}).claims


@given(st.dictionaries(st.sampled_from([row.label for row in DEFAULT_LABELS]), st.text(max_size=8)))
def test_no_label_value_raises(labels: dict[str, str]) -> None:
    assert isinstance(pod_gpu_memory_gb(labels, ONE), GpuMemory | UnknownGpuMemory)
