"""The life of one pod: set up, run, terminate, report, delete."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.cluster.kubeconfigs import write_kubeconfig
from tests.cluster.kubelet.actions import Actions
from tests.cluster.kubelet.addresses import Addresses
from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.backoff import Backoff
from tests.cluster.kubelet.container import Container, Launch, LaunchError
from tests.cluster.kubelet.environment import UnsupportedError
from tests.cluster.kubelet.launching import SERVICE_ACCOUNT, base_env, plan
from tests.cluster.kubelet.nodes import NodeSpec
from tests.cluster.kubelet.objects import (
    Object,
    by_name,
    containers,
    init_containers,
    is_deleting,
    is_sidecar,
    is_terminal,
    pod_folder,
    pod_path,
    uid,
)
from tests.cluster.kubelet.options import Options
from tests.cluster.kubelet.records import CREATING, Record, Waiting, record_of
from tests.cluster.kubelet.references import MissingError, References, fetch_references
from tests.cluster.kubelet.reporter import NOT_FOUND, Reporter
from tests.cluster.kubelet.status import Network, View, build_status, condition_is_true
from tests.cluster.kubelet.turns import Turns, prerequisites
from tests.cluster.kubelet.volumes import Volumes

SETUP_RETRY_SECONDS = 1.0
REFRESH_SECONDS = 2.0
MINIMUM_DELETION_GRACE = 1
log = logging.getLogger("kubelet.pod")


@dataclass(frozen=True)
class Kit:
    """What all pods of one stand-in kubelet share."""

    api: Api
    options: Options
    addresses: Addresses
    actions: Actions
    ca_file: Path


class PodWorker:
    """Plays one pod, from its first sight to its last; `run` is its task, the other methods are its news."""

    def __init__(self, kit: Kit, node: NodeSpec, pod: Object) -> None:
        self._kit = kit
        self._node = node
        self._pod = pod
        self._folder = kit.options.pods / pod_folder(pod)
        self._volumes = Volumes(self._folder / "volumes", pod)
        self._references = References({})
        self._network: Network | None = None
        self._started_at = time.time()
        self._ended = False
        self._deletion = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._built: Object = {}
        self._reporter = Reporter(kit.api, uid(pod), pod_path(pod, "/status"), self._status)
        self._initial, self._regular = self._make(init_containers(pod), initial=True), self._make(containers(pod))
        self.update(pod)

    def update(self, pod: Object) -> None:
        """Take a newer version of the pod's object."""
        changed = _described(pod) != _described(self._pod)
        self._pod = pod
        if is_deleting(pod):
            self._deletion.set()
        if self._network is not None:
            self._reporter.stored(pod.get("status") or {})
            if changed:
                self._volumes.refresh_downward(pod, self._references, self._addresses)

    async def run(self) -> None:
        """Play the pod to its end; when cancelled, its processes are killed at once."""
        try:
            await self._live()
            await self._delete_when_asked()
        finally:
            self._destroy()

    async def _live(self) -> None:
        if is_terminal(self._pod):
            return
        self._spawn(self._reporter.run())
        if not self._must_not_start() and await self._until_deletion(self._set_up()):
            await self._until_deletion(self._run_containers())
        await self._terminate()
        self._ended = True
        await self._reporter.settle()

    def _must_not_start(self) -> bool:
        """Tell whether it is too late to start: a deletion was asked for, or the only run was lost with its kubelet."""
        never_again = self._pod["spec"].get("restartPolicy") == "Never"
        return self._deletion.is_set() or (never_again and any(one.record.restarts for one in self._all))

    async def _until_deletion(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do `work` until it is done or the pod is to be deleted; tell whether it was done."""
        task, asked = asyncio.create_task(work), asyncio.create_task(self._deletion.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            task.cancel()
            asked.cancel()

    async def _set_up(self) -> None:
        self._network = Network(self._take_address(), self._node.address)
        self._reporter.changed()
        await self._create_volumes()
        self._spawn(self._volumes.keep_tokens_fresh(self._kit.api))

    async def _create_volumes(self) -> None:
        while True:
            if await self._volumes_ready():
                return
            await asyncio.sleep(SETUP_RETRY_SECONDS)

    def _take_address(self) -> str:
        if self._pod["spec"].get("hostNetwork"):
            return self._node.address
        return self._kit.addresses.take(self._node.network)

    async def _volumes_ready(self) -> bool:
        try:
            self._references = await fetch_references(self._kit.api, self._pod)
            await self._volumes.create(self._kit.api, self._references, self._addresses)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError, MissingError, UnsupportedError) as error:
            log.warning("volumes of %s: %s", self._folder.name, error)
            self._explain(str(error))
            return False
        return True

    def _explain(self, message: str) -> None:
        for container in self._all:
            container.record.state = Waiting(CREATING, message)
        self._reporter.changed()

    async def _run_containers(self) -> None:
        for container in self._initial:
            task = self._spawn(container.run())
            if container.record.sidecar:
                await container.started.wait()
            else:
                await _all_done([task])
            if not container.record.sidecar and not container.record.finished_well:
                return
        await _all_done([self._spawn(container.run()) for container in self._regular])

    async def _terminate(self) -> None:
        running = [container for container in self._all if container.running]
        names = [container.record.name for container in running]
        spec = self._pod["spec"]
        sidecars = [container["name"] for container in init_containers(self._pod) if is_sidecar(container)]
        turns = Turns(prerequisites((one["name"] for one in spec["containers"]), sidecars), names)
        for container in self._all:
            container.close()
        await asyncio.gather(*(container.kill(self._grace(), turns) for container in running))

    def _grace(self) -> int:
        metadata = self._pod["metadata"]
        if "deletionGracePeriodSeconds" in metadata:
            return max(MINIMUM_DELETION_GRACE, int(metadata["deletionGracePeriodSeconds"]))
        return int(self._pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def _delete_when_asked(self) -> None:
        """Delete the object for good once it is asked for; foreign finalizers may keep it a while longer."""
        await self._deletion.wait()
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid(self._pod)}}
        while True:
            try:
                await self._kit.api.delete(pod_path(self._pod), body)
            except ApiError as error:
                if error.code == NOT_FOUND:
                    return
                log.warning("deleting %s: %s", self._folder.name, error)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("deleting %s: %s", self._folder.name, error)
            else:
                return
            await asyncio.sleep(SETUP_RETRY_SECONDS)

    def _destroy(self) -> None:
        for container in self._all:
            container.destroy()
        for task in self._tasks:
            task.cancel()
        if self._network is not None:
            self._kit.addresses.release(self._network.pod)
        self._volumes.remove()

    @property
    def _all(self) -> list[Container]:
        return [*self._initial, *self._regular]

    @property
    def _addresses(self) -> dict[str, str]:
        network = self._network or Network("", self._node.address)
        return {"status.podIP": network.pod, "status.hostIP": network.host}

    def _make(self, specs: list[Object], *, initial: bool = False) -> list[Container]:
        statuses = self._pod.get("status", {}).get("initContainerStatuses" if initial else "containerStatuses")
        before = by_name(statuses)
        return [self._container(spec, record_of(spec, before.get(spec["name"]), initial=initial)) for spec in specs]

    def _container(self, spec: Object, record: Record) -> Container:
        policy = self._pod["spec"].get("restartPolicy", "Always")
        return Container(
            spec,
            record,
            prepare=self._prepare,
            actions=self._kit.actions,
            backoff=Backoff(self._kit.options.backoff_base, self._kit.options.backoff_cap),
            logs=self._folder / spec["name"],
            policy="OnFailure" if record.initial and not record.sidecar and policy == "Always" else policy,
            grace=int(self._pod["spec"].get("terminationGracePeriodSeconds", 30)),
            changed=self._reporter.changed,
        )

    async def _prepare(self, spec: Object, log_file: Path) -> Launch:
        folder = self._folder / "volumes" / f".{spec['name']}"
        for needed in (folder, log_file.parent):
            needed.mkdir(parents=True, exist_ok=True)
        await self._refresh_references()
        try:
            mounts = self._volumes.mounts(spec)
        except UnsupportedError as error:
            raise LaunchError("CreateContainerConfigError", str(error)) from error
        kubeconfig = self._own_kubeconfig(folder, mounts)
        return plan(
            self._pod,
            spec,
            references=self._references,
            mounts=mounts,
            addresses=self._addresses,
            base=base_env(self._pod, self._kit.api.access.server, folder, kubeconfig),
            folder=folder,
            log=log_file,
        )

    async def _refresh_references(self) -> None:
        """Read config maps and secrets again; while the API server is away, what was read before is good enough."""
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                self._references = await fetch_references(self._kit.api, self._pod)
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("config maps and secrets of %s: %s", self._folder.name, error)

    def _own_kubeconfig(self, folder: Path, mounts: dict[str, str]) -> Path | None:
        """Write a kubeconfig of the pod's service account: the usual fixed paths cannot exist for a process."""
        if SERVICE_ACCOUNT not in mounts:
            return None
        return write_kubeconfig(
            folder / "kubeconfig",
            server=self._kit.api.access.server,
            ca_file=self._kit.ca_file,
            token_file=Path(mounts[SERVICE_ACCOUNT]) / "token",
            user="pod",
        )

    def _status(self) -> Object:
        current = self._pod.get("status", {})
        gates = [gate["conditionType"] for gate in self._pod["spec"].get("readinessGates") or ()]
        view = View(
            initial=[container.record for container in self._initial],
            regular=[container.record for container in self._regular],
            network=self._network,
            started_at=self._started_at,
            gates={gate: condition_is_true(current, gate) for gate in gates},
            ended=self._ended,
        )
        self._built = build_status(view, self._built or current, time.time())
        return self._built

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.append(task)
        return task


async def _all_done(tasks: "list[asyncio.Task[None]]") -> None:
    """Wait for tasks without cancelling them when the waiting is cancelled; raises what one of them raised."""
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def _described(pod: Object) -> tuple[Any, Any]:
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")
