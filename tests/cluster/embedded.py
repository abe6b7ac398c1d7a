"""The embedded cluster: a real control plane, and a stand-in kubelet that runs pods as processes."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster import tools
from tests.cluster.clusters import OwnCluster
from tests.cluster.controlplane import ClusterError, ControlPlane
from tests.cluster.kubelet.nodes import read_nodes
from tests.cluster.networks import NetworkBlock
from tests.cluster.processes import ManagedProcess

ROOT = Path(__file__).resolve().parent.parent.parent
DEFAULT_NODES = Path(__file__).with_name("nodes.yaml")
NODES_SECONDS = 30.0


class KubeletControl:
    """Starts, stops and freezes the stand-in kubelet; its containers die with it, as on a machine that loses power."""

    def __init__(self, kubeconfig: Path, nodes: Path, workdir: Path, flags: tuple[str, ...] = ()) -> None:
        self._command = [
            sys.executable,
            "-m",
            "tests.cluster.kubelet",
            f"--kubeconfig={kubeconfig}",
            f"--nodes={nodes}",
            f"--workdir={workdir}",
            *flags,
        ]
        self._log = workdir / "logs" / "kubelet.log"
        self._process: ManagedProcess | None = None

    @property
    def process(self) -> ManagedProcess:
        """The running stand-in; ClusterError when it was stopped."""
        if self._process is None:
            raise ClusterError("the stand-in kubelet is stopped: start it first")
        return self._process

    def start(self) -> None:
        """Start it."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = ManagedProcess("kubelet", self._command, self._log, environment)

    def stop(self) -> None:
        """End it and with it every container; nodes and pods stay in the API as they are."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def restart(self) -> None:
        """Stop and start: pods that still exist get new addresses and their containers run anew."""
        self.stop()
        self.start()


class EmbeddedCluster(OwnCluster):
    """A cluster of this machine; a context manager. A given `workdir` is kept, a temporary one only on failure."""

    def __init__(
        self, workdir: Path | None = None, nodes: Path = DEFAULT_NODES, kubelet_flags: tuple[str, ...] = ()
    ) -> None:
        binaries = tools.ensure()
        super().__init__(binaries["kubectl"])
        self._temporary = workdir is None
        self.workdir = workdir or Path(tempfile.mkdtemp(prefix="tailrace-cluster-"))
        self.control_plane = ControlPlane(self.workdir, binaries)
        self.kubeconfig = self.control_plane.kubeconfig
        self.ca_file = self.control_plane.ca_file
        self._block = NetworkBlock()
        placed = self._block.nodes_file(nodes, self.workdir / "nodes.yaml")
        self.kubelet = KubeletControl(self.control_plane.kubelet_kubeconfig, placed, self.workdir, kubelet_flags)
        self.nodes = read_nodes(placed)

    @property
    def server(self) -> str:  # type: ignore[override]
        """The API server's base URL."""
        return self.control_plane.server

    @property
    def pod_log_dir(self) -> Path:
        """Logs of containers: `<namespace>_<pod>_<uid>/<container>/<run>.log` below it."""
        return self.workdir / "pods"

    def logs(self, pod: str, container: str, namespace: str = "default") -> str:
        """Return what all runs of a container have written, the pod's latest namesake first."""
        folders = sorted(self.pod_log_dir.glob(f"{namespace}_{pod}_*"), key=lambda path: path.stat().st_mtime)
        files = sorted((folders[-1] / container).glob("*.log"), key=lambda path: int(path.stem)) if folders else []
        return "".join(file.read_text(errors="replace") for file in files)

    def start(self) -> None:
        """Start everything and return when every node is ready for pods."""
        self.control_plane.start()
        self.kubelet.start()
        self._wait_for_nodes()

    def stop(self) -> None:
        """End everything, last started first; a temporary work folder is removed unless `keep_files`."""
        self.kubelet.stop()
        self.control_plane.stop()
        self._block.release()
        if self._temporary and not self.keep_files:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + NODES_SECONDS
        while not self._nodes_ready():
            if time.monotonic() > deadline or not self.kubelet.process.alive():
                raise ClusterError(f"the nodes did not become ready\n{self.kubelet.process.tail()}")
            time.sleep(0.2)

    def _nodes_ready(self) -> bool:
        found = {node["metadata"]["name"]: node for node in self.get("nodes").get("items", [])}
        names = {node.name for node in self.nodes}
        return names <= found.keys() and not any(_is_untouchable(found[name]) for name in names)


def _is_untouchable(node: dict[str, object]) -> bool:
    spec = node["spec"]
    taints = spec.get("taints", []) if isinstance(spec, dict) else []
    return any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints)
