"""How the operator keeps up: `python -m bench cluster`. Thousands of pods on a real control plane, fake nodes below.

The fleet's pods are copies of one that the operator's Deployment made; kwok says of them that they run.
Measured: a fresh start until every pod is routable, memory, how long questions wait at the doors meanwhile, then how
long an event takes to show at the doors while pods change and requests flow, and how fast drains end. All of it, etcd
and the API server included, shares this machine's cores. `python -m bench.cluster 100 200` does it with smaller fleets.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import mean, quantiles
from urllib.parse import urlsplit

import orjson
import uvloop
from bench.fakes.fleet import Document, copy, is_ready, server
from bench.fakes.kwok import fake_nodes
from bench.load import Connection, post
from bench.marks import Mark
from bench.process import cpu_seconds, idle_seconds, peak_kib, pss_kib, rss_kib
from bench.pulse import Pulse, livez, route
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.kubelet.api import Access, Api
from tests.cluster.replica import Replica, install
from tests.cluster.servers import Servers, eventually

FLEET = "fleet"
START_SECONDS = {2_000: 5.0, 5_000: 15.0}
"""Sizes of the fleet that are measured, and how long a fresh start may take at each."""
MOST_MIB = 250.0
NODES = 5
PROBES = 20
"""InferenceServers of one pod each: what /route says of their models shows when the doors have taken an event in."""

CHANGES_PER_SECOND = 20
CHANGES = 400
DELETIONS_PER_SECOND = 3
"""Each is some six changes of pods: deleted, let go, gone; the next one made, bound, ready."""

DELETIONS = 100
DRAINS = 500
REQUESTS_PER_SECOND = 100
POLL_SECONDS = 0.005
IDLE_POLL_SECONDS = 0.1
READY_SECONDS = 600.0
SETTLE_SECONDS = 5.0
FEEL_SECONDS = 40.0
"""Long enough for the second full list."""

LABEL = "tailrace.dev/server"


@dataclass
class Bench:
    """One cluster, one operator, its servers."""

    cluster: EmbeddedCluster
    servers: Servers
    replica: Replica

    def note(self, what: str, measured: float, limit: float | None, unit: str) -> None:
        """Print a result."""
        print(Mark(what, measured, limit, unit), flush=True)

    def told(self, what: str, took: list[Took], limit: float) -> None:
        """Note how long the doors took to act, in milliseconds."""
        for since, seconds in (("order", [one.order for one in took]), ("event", [one.event for one in took])):
            cuts = quantiles(seconds, n=100)
            told = f"{what}: from the {since} to the doors"
            self.note(f"{told}, p50", cuts[49] * 1e3, None, "ms")
            self.note(f"{told}, p99", cuts[98] * 1e3, limit, "ms")
        self.note(f"{what}: the longest from the order", max(one.order for one in took) * 1e3, None, "ms")

    def pids(self) -> list[int]:
        """Return the operator's processes: its own and its Kubernetes side."""
        assert self.replica.process is not None
        return [self.replica.process.pid, *self.replica.children()]

    # The fleet

    def grow(self, pods: int) -> None:
        """Bring the fleet to this size and wait until all of it is ready."""
        began = time.monotonic()
        here = self.fleet()
        uvloop.run(copy(self.cluster, here[0], range(len(here), pods), NODES))
        eventually(lambda: len(list(filter(is_ready, self.fleet()))) == pods, seconds=READY_SECONDS, what="fleet ready")
        sizes = [len(orjson.dumps(pod)) / 1024 for pod in self.fleet()[:50]]
        print(f"\n{pods:,} pods of {mean(sizes):.1f} KiB, made in {time.monotonic() - began:.0f} s", flush=True)

    def fleet(self) -> list[Document]:
        """Return the fleet's pods as the API server tells them."""
        found: list[Document] = self.servers.get("pods", "-l", f"{LABEL}={FLEET}")["items"]
        return found

    def restart(self, pods: int, limit: float | None) -> None:
        """Start a fresh operator; note how long it takes until every pod is routable, and its memory then."""
        self.replica.stop()
        began = time.monotonic()
        self.replica.start()
        while self.routable() < pods:
            time.sleep(0.1)
        self.note("start until all are routable", time.monotonic() - began, limit, "s")
        self.note("until then, CPU of doors and Kubernetes side", cpu_seconds(self.pids()), None, "s")
        time.sleep(SETTLE_SECONDS)
        pids = self.pids()
        for name, pid in zip(("doors", "Kubernetes side"), pids, strict=True):
            self.note(f"memory of the {name}, resident", rss_kib([pid]) / 1024, None, "MiB")
        self.note("memory of both, resident", rss_kib(pids) / 1024, MOST_MIB, "MiB")
        self.note("memory of both, shared pages divided (PSS)", pss_kib(pids) / 1024, None, "MiB")
        self.note("memory of both, resident, each at its highest", peak_kib(pids) / 1024, None, "MiB")

    def feel(self) -> None:
        """Start a fresh operator once more, asked by nobody but the pulses, until it has listed anew."""
        self.replica.stop()
        with self.pulses("from the start until after the second list"):
            self.replica.start()
            time.sleep(FEEL_SECONDS)

    @contextmanager
    def pulses(self, when: str) -> Iterator[None]:
        """Note how long questions waited during the block: for the event loop alone, and for a route."""
        with Pulse(self.replica.admin, livez) as loop, Pulse(self.replica.routing, route(FLEET)) as routes:
            yield
        print(f"how long a question waited, {when}:")
        for what, waits in (("/livez", loop.waits), ("/route and /complete", routes.waits)):
            self.note(f"  {what}, p99 of {len(waits):,}", quantiles(waits, n=100)[98] * 1e3, None, "ms")
            self.note(f"  {what}, longest", max(waits) * 1e3, None, "ms")

    @contextmanager
    def work(self) -> Iterator[None]:
        """Note the share of a core that the operator's processes take during the block, and all of the machine."""
        began, before, idle = time.monotonic(), [cpu_seconds([pid]) for pid in self.pids()], idle_seconds()
        yield
        seconds = time.monotonic() - began
        for name, pid, cpu in zip(("doors", "Kubernetes side"), self.pids(), before, strict=True):
            self.note(f"CPU of the {name} meanwhile", (cpu_seconds([pid]) - cpu) / seconds * 100, None, "%")
        self.note("idle cores meanwhile", (idle_seconds() - idle) / seconds * 100, None, "%")

    def routable(self) -> int:
        """Return how many endpoints of the fleet take requests."""
        wanted = f'tailrace_ready_endpoints{{server="{self.servers.namespace}/{FLEET}"}} '
        lines = (line for line in self.replica.metrics().splitlines() if line.startswith(wanted))
        return int(float(next(lines, "0 0").split()[-1]))


class Doors:
    """Asks /route where requests would go, and ends them at once. One connection for each who asks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: dict[str, Connection] = {}

    async def address(self, model: str) -> str | None:
        """Return the endpoint that the model's next request would go to, None when there is none."""
        connection = self._connections.get(model)
        if connection is None:
            connection = self._connections[model] = await Connection.open(self._port)
        status, body = await connection.call(post(f"/route?model={model}&tokens=100"))
        if status != 200:
            return None
        routed = orjson.loads(body)
        await connection.ask(post(f"/complete/{routed['request']}"))
        return str(routed["endpoint"])

    async def until(self, model: str, holds: Callable[[str | None], bool], poll: float = POLL_SECONDS) -> None:
        """Ask until the answer is as wanted."""
        # Polled, because this is what a client sees; nobody announces it.
        while not holds(await self.address(model)):  # noqa: ASYNC110
            await asyncio.sleep(poll)

    async def load(self, enough: asyncio.Event) -> None:
        """Ask for the fleet's model at a steady rate. Not to be cancelled: that would leave a request open."""
        while not enough.is_set():
            await self.address(FLEET)
            await asyncio.sleep(1 / REQUESTS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds until the doors acted: since the API server was told, and since a watch of our own saw the event."""

    order: float
    event: float


class Probes:
    """Pods whose coming and going is timed, each the only one of its model. A task of ``follow`` must run."""

    def __init__(self, api: Api, doors: Doors, namespace: str) -> None:
        self._api = api
        self._doors = doors
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._pods: dict[str, Document] = {}
        self._seen: dict[tuple[str, str], float] = {}

    async def follow(self) -> None:
        """Keep the newest pod of each model, and when what was seen of it."""
        labels = f"{LABEL} in ({','.join(map(probe, range(PROBES)))})"
        listing = await self._api.get(self._path, labelSelector=labels)
        for pod in listing["items"]:
            self._take(pod)
        version = listing["metadata"]["resourceVersion"]
        async for event in self._api.watch(self._path, labelSelector=labels, resourceVersion=version):
            if event["type"] in ("ADDED", "MODIFIED"):
                self._take(event["object"])

    def _take(self, pod: Document) -> None:
        self._seen.setdefault((pod["metadata"]["name"], _stage(pod)), time.perf_counter())
        if _stage(pod) != "deleted" and pod.get("status", {}).get("podIP"):
            self._pods[pod["metadata"]["labels"][LABEL]] = pod

    async def pod(self, model: str, *, besides: str = "") -> str:
        """Return the name of the model's pod, once it is another one than that."""
        while model not in self._pods or self._pods[model]["metadata"]["name"] == besides:  # noqa: ASYNC110
            await asyncio.sleep(IDLE_POLL_SECONDS)
        return str(self._pods[model]["metadata"]["name"])

    async def flip(self, model: str, *, ready: bool) -> Took:
        """Change a pod's readiness; return how long it takes the doors to act on it."""
        name = await self.pod(model)
        condition = {"type": "Ready", "status": str(ready), "reason": "Bench"}
        order = self._api.patch(f"{self._path}/{name}/status", {"status": {"conditions": [condition]}})
        return await self._timed(model, (name, str(ready)), order, lambda address: (address is not None) is ready)

    async def delete(self, model: str) -> Took:
        """Delete a pod; return how long it takes until the doors give it nothing new."""
        name = await self.pod(model)
        before = await self._doors.address(model)
        order = self._api.delete(f"{self._path}/{name}", {})
        took = await self._timed(model, (name, "deleted"), order, lambda address: address != before)
        await self.pod(model, besides=name)
        await self._doors.until(model, lambda address: address is not None, IDLE_POLL_SECONDS)
        return took

    async def _timed(
        self, model: str, stage: tuple[str, str], order: Awaitable[object], holds: Callable[[str | None], bool]
    ) -> Took:
        self._seen.pop(stage, None)
        began = time.perf_counter()
        await order
        await self._doors.until(model, holds)
        ended = time.perf_counter()
        return Took(ended - began, max(0.0, ended - self._seen.get(stage, ended)))


def _stage(pod: Document) -> str:
    return "deleted" if "deletionTimestamp" in pod["metadata"] else str(is_ready(pod))


def probe(number: int) -> str:
    """Return the name of a probe's server and model."""
    return f"probe-{number % PROBES}"


async def paced(count: int, rate: float, act: Callable[[int], Awaitable[Took]]) -> list[Took]:
    """Act so many times at a rate a second; those of one probe come one after the other."""
    turns = [asyncio.Lock() for _ in range(PROBES)]

    async def one(number: int) -> Took:
        async with turns[number % PROBES]:
            return await act(number)

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(1 / rate)
    return await asyncio.gather(*tasks)


@asynccontextmanager
async def clients(bench: Bench) -> AsyncIterator[tuple[Api, Doors]]:
    """Yield clients of the API server and of the doors, while requests flow."""
    port = urlsplit(bench.replica.routing).port or 0
    async with Api.connect(Access.from_kubeconfig(bench.cluster.kubeconfig)) as api:
        doors = Doors(port)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(doors.load(enough))
            yield api, doors
            enough.set()


async def events(bench: Bench) -> None:
    """Measure changes of readiness, then deletions."""
    async with clients(bench) as (api, doors):
        probes = Probes(api, doors, bench.servers.namespace)
        following = asyncio.create_task(probes.follow())
        with bench.pulses("during these changes"), bench.work():
            took = await paced(
                CHANGES, CHANGES_PER_SECOND, lambda n: probes.flip(probe(n), ready=bool(n // PROBES % 2))
            )
        bench.told(f"a pod's change, {CHANGES_PER_SECOND} a second", took, 100.0)
        with bench.pulses("during these deletions"), bench.work():
            took = await paced(DELETIONS, DELETIONS_PER_SECOND, lambda n: probes.delete(probe(n)))
        bench.told(f"a pod's deletion, {DELETIONS_PER_SECOND} a second", took, 200.0)
        following.cancel()


async def drains(bench: Bench) -> None:
    """Delete many pods at once and measure how fast they are let go."""
    path = f"/api/v1/namespaces/{bench.servers.namespace}/pods"
    async with clients(bench) as (api, _):
        listing = await api.get(path, labelSelector=f"{LABEL}={FLEET}")
        chosen = [pod["metadata"] for pod in listing["items"][:DRAINS]]
        waiting = {meta["uid"] for meta in chosen}
        with bench.pulses("during these drains"), bench.work():
            began = time.perf_counter()
            deleting = [asyncio.create_task(api.delete(f"{path}/{meta['name']}", {})) for meta in chosen]
            async for event in api.watch(path, resourceVersion=listing["metadata"]["resourceVersion"]):
                meta = event["object"]["metadata"]
                if event["type"] == "DELETED" or ("deletionTimestamp" in meta and not meta.get("finalizers")):
                    waiting.discard(meta["uid"])
                if not waiting:
                    break
            took = time.perf_counter() - began
            await asyncio.gather(*deleting)
        bench.note(f"{DRAINS} pods deleted at once: until all are let go", took, None, "s")
        bench.note(f"{DRAINS} pods deleted at once: drains ended a second", DRAINS / took, None, "/s")


def measure(bench: Bench, sizes: list[int]) -> None:
    """Do everything, one after the other."""
    bench.replica.start()
    names = [FLEET, *(probe(number) for number in range(PROBES))]
    bench.servers.apply(*(server(name) for name in names))
    for name in names:
        bench.servers.wait_ready(name, 1)
    for pods in sizes:
        bench.grow(pods)
        bench.restart(pods, START_SECONDS.get(pods))
        bench.feel()
    print(f"\nwith {sizes[-1]:,} pods, while /route is asked {REQUESTS_PER_SECOND} times a second", flush=True)
    uvloop.run(events(bench))
    uvloop.run(drains(bench))


def main(sizes: list[int]) -> None:
    """Run on a cluster of its own."""
    namespace = f"bench-{uuid.uuid4().hex[:6]}"
    with EmbeddedCluster() as cluster, fake_nodes(cluster, NODES):
        cluster.kubelet.stop()  # nothing of this runs on its nodes, and it would follow every pod
        install(cluster)
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")
        bench = Bench(cluster, Servers(cluster, namespace), Replica(cluster, [namespace], name="bench"))
        try:
            measure(bench, sizes)
        finally:
            bench.replica.stop()


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or list(START_SECONDS))
