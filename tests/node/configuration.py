"""The configuration files of the node's programs: values in, texts out."""

import json
from pathlib import Path
from typing import Any

from tests.node.addresses import Addresses
from tests.node.image import SANDBOX

NODE = "node-1"
STATE = Path("/run/containerd")
"""In the box only: /run is its own."""
SOCKET = STATE / "containerd.sock"


def containerd(root: Path, shim: Path, cni: Path) -> str:
    """Return containerd's: CRI with runc, a local sandbox image, and our network.

    Lowering an OOM score needs a right that not every machine grants, and runc dies without it.
    """
    return f"""
version = 3
root = '{root}'
state = '{STATE}'
imports = []

[grpc]
address = '{SOCKET}'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{SANDBOX}'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']
conf_dir = '{cni}'

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '{shim}'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def network(at: Addresses) -> str:
    """Return the CNI network: one bridge that is every pod's gateway."""
    ranges = [[{"subnet": at.pods}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "tr-pods", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return json.dumps({"cniVersion": "1.0.0", "name": "tailrace", "plugins": [bridge]})


def kubelet(at: Addresses, cgroup: str, folder: Path) -> str:
    """Return the kubelet's: it evicts nothing, collects no images, and renews its lease every two seconds."""
    return json.dumps(
        _kind("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
        | {
            "address": at.node,
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "clusterDNS": [at.dns],
            "clusterDomain": "cluster.local",
            "resolvConf": str(folder / "resolv.conf"),
            "podLogsDir": str(folder / "pods"),
            "nodeLeaseDurationSeconds": 8,
            "nodeStatusUpdateFrequency": "5s",
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "oomScoreAdj": 0,
        }
    )


def kube_proxy(at: Addresses, kubeconfig: Path) -> str:
    """Return kube-proxy's. All is masqueraded: pods of one bridge would else answer each other past the rules."""
    return json.dumps(
        _kind("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration")
        | {
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "mode": "iptables",
            "bindAddress": at.node,
            "hostnameOverride": NODE,
            "clusterCIDR": at.pods,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            "iptables": {"masqueradeAll": True, "localhostNodePorts": False, "minSyncPeriod": "0s"},
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
    )


def corefile(at: Addresses, kubeconfig: Path) -> str:
    """Return CoreDNS's: the names of Services, and nothing beyond the cluster."""
    return f"""
.:53 {{
    bind {at.dns}
    errors
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
    }}
    ready 127.0.0.1:8181
}}
"""


def _kind(version: str, kind: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind}
