"""`tailrace run` under test: a process with its own ports, Lease and service-account token, never cluster admin."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.clusters import Cluster
from tests.cluster.ports import free_ports
from tests.cluster.processes import ManagedProcess

ROOT = Path(__file__).resolve().parent.parent.parent
CRD_FILE = "inference.tailrace.dev_inferenceservers.yaml"
SERVICE_ACCOUNT = "tailrace-system/tailrace"
READY_SECONDS = 30.0


def children(parent: int) -> list[int]:
    """Return the processes that this one has started."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _parent_of(entry) == parent]


def _parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def install(cluster: Cluster) -> None:
    """Install what an administrator would: CRD, namespace, service account and RBAC, without the Deployment."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / CRD_FILE))
    cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "base" / "namespace.yaml"))
    cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "base" / "rbac.yaml"))
    cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "base" / "podpolicy.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/inferenceservers.inference.tailrace.dev")


class Replica:
    """One replica that serves the given namespaces. `command` replaces `-m tailrace run`, for proofs that break it."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str],
        *,
        name: str = "replica-0",
        command: Sequence[str] = ("-m", "tailrace", "run"),
        **settings: str,
    ) -> None:
        proxy, routing, admin = free_ports(3)
        self.name = name
        self.proxy, self.routing, self.admin = (f"http://127.0.0.1:{port}" for port in (proxy, routing, admin))
        self._command = [sys.executable, *command]
        self._log = cluster.workdir / "logs" / f"{name}-{namespaces[0]}.log"
        self.environment = os.environ | {
            "TAILRACE_HOST": "127.0.0.1",
            "TAILRACE_PROXY_PORT": str(proxy),
            "TAILRACE_ROUTING_PORT": str(routing),
            "TAILRACE_ADMIN_PORT": str(admin),
            "TAILRACE_REPLICA": name,
            "TAILRACE_WATCH_NAMESPACES": ",".join(namespaces),
            "TAILRACE_KUBECONFIG": str(cluster.bearer_kubeconfig(service_account=SERVICE_ACCOUNT)),
            "TAILRACE_GATE_ROUTERS": f"127.0.0.1:{admin}",
            "TAILRACE_GATE_IMAGE": "tailrace:test",
            **{f"TAILRACE_{key.upper()}": value for key, value in settings.items()},
        }
        self.process: ManagedProcess | None = None

    def start(self) -> None:
        """Start and wait until it is ready."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start; the same ports and name each time."""
        self.process = ManagedProcess(self.name, self._command, self._log, self.environment)

    def wait_ready(self) -> None:
        """Wait until it is ready."""
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline or not self.process.alive():
                raise RuntimeError(f"{self.name} is not ready:\n{self.process.tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def children(self) -> list[int]:
        """Return the processes that it has started: its Kubernetes side."""
        return children(self.process.pid) if self.process is not None else []

    def kill(self) -> None:
        """End it at once, its Kubernetes side first, which would else leave in order."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            self.process.kill()
            self.process = None

    def pause(self) -> None:
        """Freeze it whole until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            for pid in (*self.children(), self.process.pid):
                os.kill(pid, number)

    def leads(self) -> bool:
        """Tell whether it holds the Lease."""
        return "tailrace_leader 1.0" in self.metrics()

    def get(self, path: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return what the admin port answers, as JSON."""
        with urllib.request.urlopen(self.admin + path, timeout=10) as answer:
            return json.load(answer)

    def metrics(self) -> str:
        """Return the metrics page."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def endpoints(self) -> list[dict[str, Any]]:
        """Return the endpoints as the replica sees them."""
        found: list[dict[str, Any]] = self.get("/endpoints")["endpoints"]
        return found

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.admin + "/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
