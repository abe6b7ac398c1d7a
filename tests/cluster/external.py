"""A cluster that somebody else runs (kind for one), reached by the current kubeconfig: CLUSTER=current."""

import base64
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from tests.cluster.clusters import Cluster
from tests.cluster.controlplane import ClusterError


class ExternalCluster(Cluster):
    """The current context of the user's kubeconfig; its nodes and its control plane are left alone."""

    def __init__(self, *, made: bool = False) -> None:
        """With `made` the kubeconfig is still to be written."""
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise ClusterError("CLUSTER=current needs `kubectl` on the PATH: install it")
        super().__init__(kubectl)
        self.workdir = Path(tempfile.mkdtemp(prefix="tailrace-cluster-"))
        self.kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not made and not self.kubeconfig.exists():
            raise ClusterError(f"CLUSTER=current needs a kubeconfig: {self.kubeconfig} does not exist")

    def __enter__(self) -> Self:
        view = yaml.safe_load(self.kubectl("config", "view", "--raw", "--minify", "--flatten").stdout)
        cluster = view["clusters"][0]["cluster"]
        self.server = cluster["server"]
        self.ca_file = self.workdir / "ca.crt"
        self.ca_file.write_bytes(base64.b64decode(cluster.get("certificate-authority-data", "")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.workdir, ignore_errors=True)
