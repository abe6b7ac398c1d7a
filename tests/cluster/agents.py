"""The Kubernetes side on its own: a child process, and the test as its parent at the other end of the pipe."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.cluster.clusters import Cluster

from tailrace.core.model import (
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    Release,
    ServerGone,
    ServerSeen,
    ServerSpec,
    Snapshot,
)
from tailrace.link import (
    ChildHealth,
    Cordon,
    Desired,
    EndpointReport,
    Message,
    Observed,
    Review,
    Reviewed,
    encode,
    receive,
)

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "tailrace-system"
ACCOUNT = f"{SYSTEM}/tailrace"
COMMAND = [sys.executable, "-c", "from tailrace.cli.kube_agent import kube_agent; kube_agent()"]
WAIT_SECONDS = 30.0


def install(cluster: Cluster) -> None:
    """Install namespace, CRD and rights from the shipped manifests, but no operator."""
    cluster.kubectl("apply", "-f", str(ROOT / "manifests/base/namespace.yaml"))
    cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
    cluster.kubectl("apply", "-f", str(ROOT / "manifests/base/rbac.yaml"))
    cluster.kubectl("apply", "-f", str(ROOT / "manifests/base/podpolicy.yaml"))
    cluster.kubectl(
        "wait", "--for=condition=Established", "crd/inferenceservers.inference.tailrace.dev", "--timeout=30s"
    )


class AgentProcess:
    """A running child with what it has told; an async context manager that ends it."""

    def __init__(self, cluster: Cluster, name: str = "agent-0", **settings: object) -> None:
        self._log = cluster.workdir / f"{name}-{time.monotonic_ns()}.log"
        told = {"kubeconfig": cluster.bearer_kubeconfig(service_account=ACCOUNT), "replica": name} | settings
        self._env = os.environ | {f"TAILRACE_{key.upper()}": str(value) for key, value in told.items()}
        self._reader: asyncio.Task[None] | None = None
        self._ticket = 0
        self.process: asyncio.subprocess.Process | None = None
        self.servers: dict[str, ServerSpec] = {}
        self.endpoints: dict[str, EndpointSpec] = {}
        self.health: ChildHealth | None = None
        self.reviewed: dict[int, Reviewed] = {}
        self.snapshots = 0

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            pipe = asyncio.subprocess.PIPE
            self.process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=pipe, stdout=pipe, stderr=log, env=self._env
            )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._running()
        if process.returncode is None:
            process.kill()
        await process.wait()
        if self._reader is not None:
            await self._reader
        if process.stdin is not None:
            process.stdin.close()

    def log(self) -> str:
        """Return what the child has logged."""
        return self._log.read_text(errors="replace")

    def send(self, message: Message) -> None:
        """Send a message to the child."""
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(encode(message))

    def desire(self, *releases: Release, endpoints: tuple[EndpointReport, ...] = ()) -> None:
        """Say what should be true."""
        self.send(Desired(releases, endpoints))

    def cordon(self, uid: str, *, draining: bool, generation: int) -> None:
        """Ask for a mark on a pod."""
        self.send(Cordon(uid, draining, generation))

    async def review(
        self, token: str, audience: str | None = None, verb: str | None = None, namespace: str | None = None
    ) -> Reviewed:
        """Ask about a token."""
        self._ticket += 1
        self.send(Review(self._ticket, token, audience, verb, "inferenceservers" if verb else None, namespace))
        await self.until(lambda: self._ticket in self.reviewed)
        return self.reviewed[self._ticket]

    async def until(self, holds: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until something holds; AssertionError shows the end of the log."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (
                f"not within {seconds} s; told {self.endpoints}; log:\n{self.log()[-4000:]}"
            )
            await asyncio.sleep(0.05)

    async def leading(self) -> None:
        """Wait until this child leads."""
        await self.until(lambda: self.health is not None and self.health.leader)

    def of(self, server: str) -> list[EndpointSpec]:
        """Return the endpoints told of a server."""
        return [spec for spec in self.endpoints.values() if spec.server == server]

    def _running(self) -> asyncio.subprocess.Process:
        assert self.process is not None
        return self.process

    async def _read(self) -> None:
        stdout = self._running().stdout
        assert stdout is not None
        while (message := await receive(stdout)) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Observed(observations=observations):
                for observation in observations:
                    self._observe(observation)
            case ChildHealth():
                self.health = message
            case Reviewed(ticket=ticket):
                self.reviewed[ticket] = message

    def _observe(self, observation: object) -> None:
        match observation:
            case Snapshot(servers=servers, endpoints=endpoints):
                self.snapshots += 1
                self.servers = {spec.key: spec for spec in servers}
                self.endpoints = {spec.uid: spec for spec in endpoints}
            case ServerSeen(spec=spec):
                self.servers[spec.key] = spec
            case ServerGone(key=key):
                self.servers.pop(key, None)
            case EndpointSeen(spec=endpoint):
                self.endpoints[endpoint.uid] = endpoint
            case EndpointGone(uid=uid):
                self.endpoints.pop(uid, None)
