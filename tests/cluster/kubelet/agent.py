"""The stand-in kubelet as a whole: its nodes' heartbeats, one worker for each pod, news handed to the workers."""

import asyncio
import logging
import signal
from pathlib import Path

import aiohttp
from tests.cluster.kubelet.actions import Actions
from tests.cluster.kubelet.addresses import Addresses
from tests.cluster.kubelet.api import Access, Api
from tests.cluster.kubelet.heartbeat import Heartbeat
from tests.cluster.kubelet.informer import PodInformer
from tests.cluster.kubelet.nodes import NodeSpec, read_nodes
from tests.cluster.kubelet.objects import Object, uid
from tests.cluster.kubelet.options import Options
from tests.cluster.kubelet.pod import Kit, PodWorker

log = logging.getLogger("kubelet")


class Agent:
    """Gives every pod of its nodes a worker."""

    def __init__(self, kit: Kit, nodes: list[NodeSpec]) -> None:
        self._kit = kit
        self._nodes = {node.name: node for node in nodes}
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def seen(self, pod: Object) -> None:
        """Take a new or newer pod."""
        key = uid(pod)
        if key in self._workers:
            self._workers[key].update(pod)
            return
        worker = PodWorker(self._kit, self._nodes[pod["spec"]["nodeName"]], pod)
        self._workers[key] = worker
        self._tasks[key] = asyncio.create_task(worker.run(), name=pod["metadata"]["name"])
        self._tasks[key].add_done_callback(_tell)

    def gone(self, key: str) -> None:
        """Take the news that a pod's object vanished: whatever still runs is killed at once."""
        self._workers.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def run(self) -> None:
        """Play the nodes until cancelled; then every container is killed."""
        informer = PodInformer(self._kit.api, frozenset(self._nodes), self.seen, self.gone)
        beats = [Heartbeat(self._kit.api, node, self._kit.options.heartbeat) for node in self._nodes.values()]
        try:
            await asyncio.gather(informer.run(), *(beat.run() for beat in beats))
        finally:
            await self._end_all()

    async def _end_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the worker of pod %s failed", task.get_name(), exc_info=task.exception())


async def serve(options: Options) -> None:
    """Run one stand-in kubelet until SIGINT or SIGTERM."""
    access = Access.from_kubeconfig(options.kubeconfig)
    options.pods.mkdir(parents=True, exist_ok=True)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with Api.connect(access) as api, aiohttp.ClientSession(connector=connector) as session:
        kit = Kit(api, options, _addresses(options), Actions(session), _write_authority(options.workdir, access))
        await _until_signal(Agent(kit, read_nodes(options.nodes)))


def _addresses(options: Options) -> Addresses:
    return Addresses(options.workdir / "addresses.json", reuse=options.reuse_addresses)


def _write_authority(workdir: Path, access: Access) -> Path:
    path = workdir / "ca.crt"
    path.write_text(access.authority)
    return path


async def _until_signal(agent: Agent) -> None:
    work = asyncio.create_task(agent.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")
