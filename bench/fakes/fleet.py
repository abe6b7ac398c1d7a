"""InferenceServers whose pods have the size of real ones, on fake nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from bench.fakes.kwok import SELECTOR
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.kubelet.api import Access, Api

from tailrace.api import names

Document = dict[str, Any]
WRITERS = 16
LEASE_SECONDS = 20
"""A replica that has just begun lets no older pod go for so long: an earlier life may have given leases there."""

VARIABLES = 20
"""Environment variables of an engine's container: with what Kubernetes adds, a pod then has 10 to 15 KB."""


def server(name: str) -> Document:
    """Return an InferenceServer of one pod and of a model of the same name.

    It settles at once, so that nothing but work is timed.
    """
    return {
        "apiVersion": "inference.tailrace.dev/v1alpha1",
        "kind": "InferenceServer",
        "metadata": {"name": name},
        "spec": {
            "models": [{"name": name}],
            "replicas": 1,
            "capacity": 32,
            "drain": {"timeoutSeconds": 30, "settleSeconds": 0},
            "timeouts": {"totalSeconds": LEASE_SECONDS},
            "template": {"metadata": {"annotations": _annotations(name)}, "spec": _pod_spec(name)},
        },
    }


def is_ready(pod: Document) -> bool:
    """Tell whether a pod takes requests."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def copy(cluster: EmbeddedCluster, pod: Document, numbers: Iterable[int], nodes: int) -> None:
    """Create copies of a pod with these numbers, spread over the nodes.

    They belong to the same InferenceServer and to no ReplicaSet, which would take some hundred a minute to make them.
    """
    waiting = iter(numbers)
    async with Api.connect(Access.from_kubeconfig(cluster.kubeconfig)) as api:
        await asyncio.gather(*(_create(api, pod, waiting, nodes) for _ in range(WRITERS)))


async def _create(api: Api, pod: Document, numbers: Iterator[int], nodes: int) -> None:
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
    for number in numbers:
        await api.post(path, _copied(pod, number, nodes))


def _copied(pod: Document, number: int, nodes: int) -> Document:
    meta = pod["metadata"]
    labels = {name: value for name, value in meta["labels"].items() if name != "pod-template-hash"}
    kept = {"namespace": meta["namespace"], "annotations": meta["annotations"], "finalizers": meta["finalizers"]}
    spec = pod["spec"] | {"nodeName": f"fake-{number % nodes}"}
    named = {"name": f"{meta['labels'][names.LABEL_SERVER]}-{number:05}", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept | named, "spec": spec}


def _annotations(name: str) -> dict[str, str]:
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8000",
        "example.com/contact": f"the team that runs {name}, see the handbook for who is on call this week",
        "example.com/settings": "x" * 600,
    }


def _pod_spec(name: str) -> Document:
    return {
        "nodeSelector": SELECTOR,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [
            {"name": "weights", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
        ],
        "containers": [_engine(name)],
    }


def _engine(name: str) -> Document:
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 5, "failureThreshold": 3}
    return {
        "name": "engine",
        "image": "registry.example.com/inference/vllm-openai:v0.11.2",
        "args": [
            *("--model", f"/weights/{name}", "--served-model-name", name, "--port", "8000"),
            *("--tensor-parallel-size", "1", "--max-num-seqs", "32", "--gpu-memory-utilization", "0.92"),
        ],
        "env": [{"name": f"ENGINE_SETTING_{n}", "value": f"value-{n}-{'v' * 40}"} for n in range(VARIABLES)],
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "1m", "memory": "1Mi"}},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "startupProbe": probe | {"failureThreshold": 120},
        "volumeMounts": [
            {"name": "weights", "mountPath": "/weights"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
