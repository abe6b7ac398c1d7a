"""The face that every test cluster has, whoever runs it."""

import json
import subprocess
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.controlplane import ClusterError
from tests.cluster.kubeconfigs import write_kubeconfig
from tests.cluster.reader import Reader

KUBECTL_SECONDS = 300


class Cluster:
    """A cluster that tests talk to by kubectl or by a kubeconfig."""

    kubeconfig: Path
    """The administrator's kubeconfig."""
    workdir: Path
    """A folder for files of this cluster and of tests."""
    server: str
    """The API server's base URL."""
    ca_file: Path
    """The certificate authority of the API server."""

    def __init__(self, kubectl: Path | str) -> None:
        self.kubectl_path = str(kubectl)
        """The kubectl binary that fits this cluster."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":  # noqa: A002
        """Run kubectl as the administrator; with `check`, a failure raises ClusterError with what kubectl said."""
        command = [self.kubectl_path, f"--kubeconfig={self.kubeconfig}", *args]
        result = subprocess.run(
            command, input=input, capture_output=True, text=True, check=False, timeout=KUBECTL_SECONDS
        )
        if check and result.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(args)} failed: {result.stderr.strip()}")
        return result

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.kubeconfig)

    def get(self, *args: str) -> dict[str, Any]:
        """Return what `kubectl get ARGS -o json` says; empty when the object does not exist."""
        read = self._reader.get(*args)
        if read is not None:
            return read
        text = self.kubectl("get", *args, "--ignore-not-found", "-o", "json").stdout
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def service_account_token(self, account: str, *, audience: str | None = None, seconds: int = 3600) -> str:
        """Return a fresh token of `namespace/name`."""
        namespace, _, name = account.partition("/")
        audiences = [f"--audience={audience}"] if audience else []
        asked = ("create", "token", name, "-n", namespace, f"--duration={seconds}s", *audiences)
        return self.kubectl(*asked).stdout.strip()

    def bearer_kubeconfig(self, *, token: str | None = None, service_account: str | None = None) -> Path:
        """Write a kubeconfig that authenticates by `token`, or as the service account `namespace/name`.

        The operator under test runs with one of these, so that its own RBAC rules are what is tested.
        """
        if (token is None) == (service_account is None):
            raise ValueError("give exactly one of token and service_account")
        presented = token if token is not None else self.service_account_token(service_account or "")
        name = (service_account or "bearer").replace("/", "_")
        path = self.workdir / "kubeconfigs" / f"{name}-{abs(hash(presented)):x}.kubeconfig"
        return write_kubeconfig(path, server=self.server, ca_file=self.ca_file, token=presented, user=name)


class OwnCluster(Cluster):
    """A cluster that the tests start and stop themselves; a context manager."""

    keep_files = False
    """Keep the cluster's files when it stops, for its logs: set when something failed."""

    def start(self) -> None:
        """Start everything."""
        raise NotImplementedError

    def stop(self) -> None:
        """End everything, however much of it has started."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.keep_files = True
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep_files = self.keep_files or kind is not None
        self.stop()
