"""The nodes that the stand-in kubelet plays: their description in a file, and the objects made from it."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tests.cluster.kubelet.objects import Object, timestamp

DEFAULT_ALLOCATABLE = {"cpu": "64", "memory": "512Gi", "pods": "250", "ephemeral-storage": "500Gi"}
FIRST_NETWORK = 16
LAST_NETWORK = 254
LEASE_SECONDS = 40
VERSION = "v1.36.3"
OK_CONDITIONS = {
    "Ready": ("True", "KubeletReady", "the stand-in kubelet is running"),
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "the stand-in kubelet does not measure memory"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "the stand-in kubelet does not measure disks"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "the stand-in kubelet does not count processes"),
}
NODE_INFO = dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "kubeProxyVersion"), "") | {
    "kubeletVersion": VERSION,
    "operatingSystem": "linux",
    "architecture": "amd64",
    "osImage": "processes",
    "containerRuntimeVersion": "process://1",
}


@dataclass(frozen=True)
class NodeSpec:
    """One node of the nodes file; `network` is the second number of its pods' addresses (127.network.x.y)."""

    name: str
    network: int
    labels: dict[str, str] = field(default_factory=dict)
    allocatable: dict[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()

    @property
    def address(self) -> str:
        """The node's own address."""
        return f"127.{self.network}.0.1"


def read_nodes(path: Path) -> list[NodeSpec]:
    """Read a nodes file: `nodes: [{name, labels, allocatable, taints, network}]`; ValueError names what is wrong.

    `network` is left out but where several clusters run on one machine: pods of one address cannot all listen there.
    """
    document = yaml.safe_load(path.read_text()) or {}
    entries = document.get("nodes")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: `nodes` must be a list with at least one node")
    if len(entries) > LAST_NETWORK - FIRST_NETWORK:
        raise ValueError(f"{path}: at most {LAST_NETWORK - FIRST_NETWORK} nodes have a network of their own")
    return [_node(path, entry, FIRST_NETWORK + number) for number, entry in enumerate(entries)]


def _node(path: Path, entry: object, network: int) -> NodeSpec:
    if not isinstance(entry, dict) or not entry.get("name"):
        raise ValueError(f"{path}: every entry of `nodes` needs a `name`")
    labels = {key: str(value) for key, value in (entry.get("labels") or {}).items()}
    allocatable = {key: str(value) for key, value in (entry.get("allocatable") or {}).items()}
    network = int(entry.get("network", network))
    return NodeSpec(
        str(entry["name"]), network, labels, DEFAULT_ALLOCATABLE | allocatable, tuple(entry.get("taints") or ())
    )


def node_object(node: NodeSpec, now: float) -> Object:
    """Build the Node that the kubelet registers; `now` in seconds since the epoch."""
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    spec: Object = {"taints": list(node.taints)} if node.taints else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels | node.labels},
        "spec": spec,
        "status": node_status(node, now),
    }


def node_status(node: NodeSpec, now: float) -> Object:
    """Build the node's status: capacity, conditions, address."""
    stamp = timestamp(now)
    addresses = [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.name}]
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": stamp}
        for kind, (status, reason, message) in OK_CONDITIONS.items()
    ]
    return {
        "capacity": node.allocatable,
        "allocatable": node.allocatable,
        "conditions": [condition | {"lastTransitionTime": stamp} for condition in conditions],
        "addresses": addresses,
        "nodeInfo": dict(NODE_INFO),
    }
