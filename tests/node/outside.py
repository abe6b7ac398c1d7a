"""Clusters that the tests do not run themselves: the current kubeconfig's, or one that kind makes for them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from tests.cluster.controlplane import ClusterError
from tests.cluster.external import ExternalCluster
from tests.cluster.servers import Document
from tests.node import image

KIND_CONFIG = Path(__file__).with_name("kind.yaml")
KIND_NAME = "tailrace-tests"


class OutsideCluster(ExternalCluster):
    """CLUSTER=current. Its nodes have the images of TAILRACE_IMAGES or can pull them, and are reached by node ports."""

    pod_logs: Path | None = None
    """Whose containers' logs cannot be followed as files."""
    proxy_type = "NodePort"

    def proxy_url(self, service: Document) -> str:
        """Return the proxy's address as this machine reaches it: TAILRACE_PROXY_URL, or a node's own."""
        if told := os.environ.get("TAILRACE_PROXY_URL"):
            return told.rstrip("/")
        addresses = self.get("nodes")["items"][0]["status"]["addresses"]
        node = next(one["address"] for one in addresses if one["type"] == "InternalIP")
        return f"http://{node}:{service['spec']['ports'][0]['nodePort']}"


class KindCluster(OutsideCluster):
    """CLUSTER=kind: a cluster of kind's, made for the tests and deleted after them, with the tests' own image."""

    def __init__(self) -> None:
        self._kind("version")
        super().__init__(made=True)
        self.kubeconfig = self.workdir / "kubeconfig"

    def __enter__(self) -> Self:
        self._kind("create", "cluster", f"--config={KIND_CONFIG}", f"--kubeconfig={self.kubeconfig}", "--wait=120s")
        try:
            self._kind("load", "image-archive", str(image.ensure()))
            return super().__enter__()
        except BaseException:
            self._delete()
            raise

    def __exit__(self, *error: object) -> None:
        self._delete()
        super().__exit__(None, None, None)

    def _delete(self) -> None:
        self._kind("delete", "cluster", f"--kubeconfig={self.kubeconfig}")

    def _kind(self, *args: str) -> None:
        if (kind := shutil.which("kind")) is None:
            raise ClusterError("CLUSTER=kind needs `kind` and Docker: install both, or unset CLUSTER")
        named = () if args == ("version",) else ("--name", KIND_NAME)
        result = subprocess.run([kind, *args, *named], capture_output=True, text=True, check=False, timeout=600)
        if result.returncode != 0:
            raise ClusterError(f"kind {' '.join(args)} failed: {result.stderr.strip()}")
