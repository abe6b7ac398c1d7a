"""One operator behind a fault proxy, its servers, and the history of what happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.kubeconfigs import write_kubeconfig
from tests.cluster.load import Load, Record
from tests.cluster.processes import ManagedProcess
from tests.cluster.replica import SERVICE_ACCOUNT, Replica
from tests.cluster.servers import MODEL, Document, Servers, eventually
from tests.faults.background import Background
from tests.faults.calls import Call
from tests.faults.direct import Direct
from tests.faults.history import Away, History, Sampled
from tests.faults.invariants import violations
from tests.faults.proxy import FaultProxy
from tests.faults.recorder import Recorder

LEASE_SECONDS = 3.0
RESYNC_SECONDS = 2.0
QUICK = {
    "lease_seconds": f"{LEASE_SECONDS:g}",
    "lease_renew_seconds": "1",
    "resync_seconds": f"{RESYNC_SECONDS:g}",
    "status_seconds": "1",
    "shutdown_seconds": "5",
}
SOAK = os.environ.get("TAILRACE_SOAK") == "1"
"""Longer outages and every k instead of a spread; the default run stays within minutes."""


class Rig:
    """A context manager; `check` at the end of a test holds the history against every invariant."""

    def __init__(self, cluster: EmbeddedCluster, namespace: str, **settings: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.servers = Servers(cluster, namespace)
        self._stack = ExitStack()
        self._background = Background()
        self._recorder = Recorder(cluster, namespace)
        pki = cluster.workdir / "pki"
        self.proxy = FaultProxy(
            self._background,
            cluster.server,
            ca=cluster.ca_file,
            certificate=pki / "server.crt",
            key=pki / "server.key",
        )
        self.proxy.on_commit = self._recorder.committed
        told = QUICK | {"kubeconfig": str(self._kubeconfig())} | settings
        self.replica = Replica(cluster, [namespace], name="faulty", **told)
        # The kernel ends a process with the thread that has started it, so that has to be one that stays.
        self._starter = ThreadPoolExecutor(1)
        self._down_since: float | None = None

    def _kubeconfig(self) -> Path:
        token = self.cluster.service_account_token(SERVICE_ACCOUNT)
        path = self.cluster.workdir / "kubeconfigs" / f"faults-{self.namespace}.kubeconfig"
        return write_kubeconfig(path, server=self.proxy.url, ca_file=self.cluster.ca_file, token=token, user="operator")

    def __enter__(self) -> Self:
        self._stack.enter_context(self._starter)
        self._stack.enter_context(self._background)
        self._stack.enter_context(self.proxy)
        self._background.spawn(self._recorder.watch())
        self._background.spawn(self._recorder.sample(self.replica.admin))
        self._stack.callback(self.replica.stop)
        self._starter.submit(self.replica.start).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # The operator's processes

    @property
    def process(self) -> ManagedProcess:
        """The replica's process."""
        assert self.replica.process is not None
        return self.replica.process

    def child(self) -> int | None:
        """Return the process id of the Kubernetes child, None while there is none."""
        return next(iter(self.replica.children()), None)

    def kill_child(self) -> None:
        """End the Kubernetes child at once."""
        child = self.child()
        if child is not None:
            os.kill(child, signal.SIGKILL)

    def kill(self) -> None:
        """End the operator at once, its child first: a replica that is killed alone lets its child leave in order."""
        self._down_since = time.time()
        self.kill_child()
        self.process.kill()

    async def restart(self) -> None:
        """Start a killed operator again, with the same ports; returns when it is ready."""
        await asyncio.get_running_loop().run_in_executor(self._starter, self.replica.start)
        if self._down_since is not None:
            self.note_away(self._down_since)
            self._down_since = None

    def note_away(self, since: float) -> None:
        """Note that nobody could write since then, until now."""
        self.history.add(Away(since, time.time()))

    def after_write(self, number: int, act: Callable[[], None]) -> list[Call]:
        """Act once, right after the API server has carried out the write of this number from now on (from 1).

        The answer is on its way when `act` returns. The list that is returned holds the write when it has happened.
        """
        met: list[Call] = []
        seen = 0

        def heard(call: Call) -> None:
            nonlocal seen
            self._recorder.committed(call)
            seen += 1
            if seen == number:
                met.append(call)
                act()

        self.proxy.on_commit = heard
        return met

    # What happened

    @property
    def history(self) -> History:
        """What was recorded so far; requests only after `check` or `book`."""
        return self._recorder.history

    def samples(self) -> list[Sampled]:
        """Return how the replica has told its endpoints, by time."""
        return self.history.of(Sampled)

    @asynccontextmanager
    async def load(self, *, clients: int = 8, tokens: tuple[int, int] = (20, 120)) -> AsyncIterator[Load]:
        """Run proxied streams for the time of the block, which ends when they have."""
        async with Load(self.replica.proxy, MODEL, clients=clients, tokens=tokens, seed=3) as load:
            yield load

    def direct(self) -> Direct:
        """Return clients that ask /route and stream from pods themselves."""
        return Direct(self.replica.routing, MODEL)

    def roll_out(self, note: str) -> None:
        """Have the operator replace every pod of the server alpha: its template says something new."""
        change = {"spec": {"template": {"metadata": {"annotations": {"example.com/note": note}}}}}
        self.servers.kubectl("patch", "isvr/alpha", "--type=merge", "--patch", json.dumps(change))

    def vanish(self, pod: Document) -> float:
        """Let a pod be gone without a farewell, past the proxy; return when it was."""
        name = pod["metadata"]["name"]
        bare = json.dumps({"metadata": {"finalizers": None}})
        self.servers.kubectl("patch", "pod", name, "--type=merge", "--patch", bare)
        self.servers.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        return time.time()

    def endpoints(self) -> set[str]:
        """Return the uids of the endpoints that get requests."""
        return {one["uid"] for one in self.replica.endpoints() if one["state"] == "ready"}

    async def gone_from_the_doors(self, pod: Document, *, seconds: float, what: str = "") -> None:
        """Wait until a pod gets no requests."""
        uid = pod["metadata"]["uid"]
        what = f"{what}: {pod['metadata']['name']} gone from the doors"
        await asyncio.to_thread(eventually, lambda: uid not in self.endpoints(), seconds=seconds, what=what)

    async def rolled_out(self, note: str, *, seconds: float = 40.0) -> None:
        """Wait until only pods of this template are left, as many as should be, and the doors know them."""
        what = f"rollout {note} over"
        await asyncio.to_thread(eventually, lambda: self._has_rolled_out(note), seconds=seconds, what=what)

    def _has_rolled_out(self, note: str) -> bool:
        pods = self.servers.pods("alpha")
        wanted = self.servers.get("isvr", "alpha")["spec"]["replicas"]
        notes = [(pod["metadata"].get("annotations") or {}).get("example.com/note") for pod in pods]
        return notes == [note] * wanted and self._is_quiet()

    async def settle(self, *, seconds: float = 40.0) -> None:
        """Wait until no pod terminates and the doors know exactly the pods that are ready."""
        await asyncio.to_thread(eventually, self._is_quiet, seconds=seconds, what="quiet after the fault")

    def _is_quiet(self) -> bool:
        pods = self.servers.pods()
        if any("deletionTimestamp" in pod["metadata"] for pod in pods):
            return False
        wanted = self.servers.get("isvr", "alpha").get("spec", {}).get("replicas", 0)
        ready = {pod["metadata"]["uid"] for pod in pods if _is_ready(pod)}
        return ready == self.endpoints() and len(ready) == len(pods) >= wanted

    def _is_idle(self) -> bool:
        return bool(self.replica.get("/endpoints")["inFlight"] == 0)

    async def check(self, *records: Iterable[Record]) -> None:
        """Wait for quiet and for the end of every request, then hold all that happened against the invariants."""
        await self.settle()
        await asyncio.to_thread(eventually, self._is_idle, seconds=10, what="nothing in flight")
        for some in records:
            self._recorder.requests(some)
        self._recorder.engines(self.servers.engine_log())
        await asyncio.sleep(0.3)  # one more sample, of the quiet
        assert not (found := violations(self.history)), "\n".join(found)

    def forget(self) -> None:
        """Begin the history anew, so that a long run does not fill the memory. Call it when all is quiet."""
        self._recorder.forget(time.time())
        self.proxy.calls.clear()
        self.servers.forget_requests()


def _is_ready(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions")
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions or ())
