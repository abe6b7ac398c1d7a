"""A real node: kubelet, containerd, kube-proxy and CoreDNS in a box, beside the embedded control plane."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import tools
from tests.cluster.clusters import OwnCluster
from tests.cluster.controlplane import ClusterError, ControlPlane, Place
from tests.cluster.servers import Document
from tests.node import cgroups, configuration, image
from tests.node.addresses import ADDRESSES
from tests.node.box import Box, BoxedProcess
from tests.node.configuration import NODE, SOCKET

WORKDIR = Path(tempfile.gettempdir()) / "tailrace-node"
"""One for the machine: addresses and control group are, too."""
READY_SECONDS = 60.0
PROGRAMS = ("ip", "iptables", "nsenter", "runc", "unshare", "buildah", "mmdebstrap")
PLUGINS = Path("/usr/lib/cni/bridge")


def missing() -> str:
    """Say in one line why no node can run on this machine; empty when one can."""
    if os.geteuid() != 0:
        return "a real node needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    lacking += [] if PLUGINS.exists() else [str(PLUGINS)]
    if lacking:
        return f"a real node needs {', '.join(lacking)}: see tests/node/README.md"
    return "" if _may_make_namespaces() else "a real node needs the right to make namespaces and to mount"


def _may_make_namespaces() -> bool:
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class NodeCluster(OwnCluster):
    """A cluster of one real node; a context manager. Its files are kept when something failed, until the next one."""

    pod_logs: Path | None = WORKDIR / "pods"
    """The containers' logs."""
    proxy_type = "ClusterIP"

    def __init__(self) -> None:
        self.binaries = tools.ensure((*tools.CONTROL_PLANE, *tools.NODE))
        super().__init__(self.binaries["kubectl"])
        self._claim = tools.locked(Path(f"{WORKDIR}.lock"), "another node cluster runs on this machine")
        self._claim.__enter__()
        self._stopped = False
        clean()
        self.workdir = WORKDIR
        self.workdir.mkdir()
        place = Place(ADDRESSES.host, ADDRESSES.services, published=True)
        self.control_plane = ControlPlane(self.workdir, self.binaries, place)
        self.kubeconfig = self.control_plane.kubeconfig
        self.ca_file = self.control_plane.ca_file
        self.box = Box(self.workdir / "logs")
        self.processes: dict[str, BoxedProcess] = {}

    @property
    def server(self) -> str:  # type: ignore[override]
        """The API server's base URL."""
        return self.control_plane.server

    def start(self) -> None:
        """Start everything, import the image, and return when pods can run."""
        archive = image.ensure()
        cgroups.make()
        self.box.start()
        self._configure()
        self._start("containerd", f"--config={self.workdir}/containerd.toml")
        self.control_plane.start()
        self._wait("containerd answers", self._containerd_answers)
        self.ctr("images", "import", "--local", str(archive))
        self._start("kubelet", *self._kubelet_flags())
        self._start("kube-proxy", f"--config={self.workdir}/kube-proxy.json")
        self._start("coredns", f"-conf={self.workdir}/Corefile")
        self._wait("the node is ready", self.is_ready)

    def stop(self) -> None:
        """End everything; whatever lives in the box goes with it. The second time nothing happens."""
        if self._stopped:
            return
        self._stopped = True
        try:
            self.box.stop()
            for process in self.processes.values():
                process.forget()
            self.control_plane.stop()
            cgroups.remove()
            if not self.keep_files:
                clean()
        finally:
            self._claim.__exit__(None, None, None)

    def _kubelet_flags(self) -> list[str]:
        flags = [f"--config={self.workdir}/kubelet.json", f"--kubeconfig={self.control_plane.kubelet_kubeconfig}"]
        flags += [f"--root-dir={self.workdir}/kubelet", f"--hostname-override={NODE}", f"--node-ip={ADDRESSES.node}"]
        return [*flags, f"--cert-dir={self.workdir}/kubelet-pki"]

    def start_again(self) -> None:
        """Start containerd and the kubelet after a test has ended them, one after the other as their units would."""
        self.processes["containerd"].start()
        self._wait_for("containerd answers", self._containerd_answers)
        self.processes["kubelet"].start()

    def proxy_url(self, service: Document) -> str:
        """Return the proxy's address as this machine reaches it."""
        return f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"

    def ctr(self, *args: str) -> str:
        """Run containerd's client on the images and containers of the kubelet."""
        ctr = (str(self.binaries["ctr"]), f"--address={SOCKET}", "--namespace=k8s.io")
        return self.box.run(*ctr, *args, seconds=120)

    def is_ready(self) -> bool:
        """Whether the API server says that the node is ready."""
        conditions = self.get("node", NODE).get("status", {}).get("conditions", [])
        return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)

    def _configure(self) -> None:
        folder, kubeconfig = self.workdir, self.control_plane.kubelet_kubeconfig
        (folder / "cni").mkdir()
        (folder / "resolv.conf").touch()
        shim = self.binaries["containerd-shim-runc-v2"]
        texts = {
            "containerd.toml": configuration.containerd(folder / "containerd", shim, folder / "cni"),
            "cni/10-tailrace.conflist": configuration.network(ADDRESSES),
            "kubelet.json": configuration.kubelet(ADDRESSES, cgroups.NAME, folder),
            "kube-proxy.json": configuration.kube_proxy(ADDRESSES, kubeconfig),
            "Corefile": configuration.corefile(ADDRESSES, kubeconfig),
        }
        for name, text in texts.items():
            (folder / name).write_text(text)

    def _start(self, name: str, *flags: str) -> None:
        log = self.workdir / "logs" / f"{name}.log"
        self.processes[name] = BoxedProcess(self.box, name, [str(self.binaries[name]), *flags], log)

    def _containerd_answers(self) -> bool:
        try:
            self.ctr("version")
        except ClusterError:
            return False
        return True

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for the start of the node, in which no program may end."""

        def all_run_and_it_holds() -> bool:
            for process in self.processes.values():
                if not process.alive():
                    raise ClusterError(f"{process.name} ended; the end of {process.log}:\n{process.tail()}")
            return holds()

        self._wait_for(what, all_run_and_it_holds)

    def _wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise ClusterError(f"not within {READY_SECONDS:.0f} s: {what}; logs are in {self.workdir / 'logs'}")
            time.sleep(0.1)


def clean() -> None:
    """Remove what a node cluster that was killed may have left: control groups and files; the kernel took the rest."""
    cgroups.remove()
    shutil.rmtree(WORKDIR, ignore_errors=True)
