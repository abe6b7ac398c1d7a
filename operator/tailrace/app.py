"""The composition root: settings, core and adapters become one replica. The only module that knows all sides."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import aiohttp

from tailrace.changes import Changes
from tailrace.child import KubernetesChild, agent_command
from tailrace.clock import Clock
from tailrace.control import Control
from tailrace.core.drain import DrainKind, Mark
from tailrace.core.model import Observation, Place, Reading, Snapshot
from tailrace.core.router import Router
from tailrace.documents import DocumentWatch
from tailrace.engines.families import family
from tailrace.engines.reader import Engine, join_host_port, split_host_port
from tailrace.engines.scraper import Scraper
from tailrace.http.admin import AdminDoor
from tailrace.http.auth import Guard
from tailrace.http.given import Given
from tailrace.http.health import Check, Health
from tailrace.http.peerdoor import PeerDoor
from tailrace.http.peers import Peers
from tailrace.http.proxy import ProxyDoor
from tailrace.http.routing import RoutingDoor
from tailrace.http.serving import Runner
from tailrace.link import ChildHealth, Cordon, Desired, GateMark, Member, Members, Message, Observed
from tailrace.running import Listener, Stop, listen, own_address, running
from tailrace.settings import Settings
from tailrace.telemetry.metrics import Metrics
from tailrace.words import counted

log = logging.getLogger(__name__)

FINISH_POLL_SECONDS = 0.1

SAY_SECONDS = 10.0
"""How often a stopping replica says what it waits for."""

Sleep = Callable[[float], Awaitable[None]]


class ReplicaFailedError(Exception):
    """A part of the replica ended by a mistake of the program; the log has said which."""


class NameTakenError(Exception):
    """Another replica has taken this one's name."""


class Replica:
    """One replica's data plane: the core, its doors and its control loop. Without ``kubernetes`` it has no cluster.

    ``sleep`` passes the seconds that a stopping replica lets go by.
    """

    def __init__(self, settings: Settings, *, in_cluster: bool, sleep: Sleep = asyncio.sleep) -> None:
        self.settings = settings
        self._sleep = sleep
        self.clock = Clock()
        self.changes = Changes()
        self.me = _member(settings)
        self.router = Router(
            self.me.id,
            booted_at=self.clock(),
            rng=Random(),  # noqa: S311 - spreads load, keeps no secret
            alone=not in_cluster,
        )
        self.router.on_change = self.changes.notify
        self._place = Place()
        self._locate("")
        self.synced = False
        self.stopping = False
        self.child_health = ChildHealth(0.0, 0.0, leader=False, holder="")
        self.superseded = asyncio.Event()
        self._doors: tuple[Runner, Runner]
        self.kubernetes = KubernetesChild(agent_command(self.me), self.hear, self.clock) if in_cluster else None
        self.metrics = Metrics(self.router.status, leader=self._leader, watch_age=self._watch_age)
        self.proxy = ProxyDoor(self.router, self.clock, settings, self.metrics)
        guard = Guard(self.kubernetes, self.clock, open_reads=settings.open_reads, own_token=self._token)
        self.peers = Peers(
            self.router, self.clock, self.changes, token=self._token, leading=lambda: bool(self._leader())
        )
        peer_door = PeerDoor(self.peers, Given(self.router, self.clock), guard, settings)
        forward = self.peers.forward if in_cluster else None
        self.routing = RoutingDoor(self.router, self.clock, settings, self.metrics, forward)
        self.admin = AdminDoor(
            self.router,
            self.clock,
            settings,
            guard=guard,
            health=self.health,
            render_metrics=self.metrics.render,
            cordon=self._cordon if self.kubernetes else None,
            changes=self.changes,
            more=peer_door.routes() if in_cluster else (),
        )

    def apply(self, snapshot: Snapshot) -> None:
        """Take in the whole truth; from the first time on the replica is ready."""
        self.router.apply(snapshot, self.clock())
        self.synced = True

    def hear(self, message: Message) -> None:
        """Take in what the Kubernetes side says."""
        if isinstance(message, ChildHealth):
            self.child_health = message
            self._locate(message.zone)
        elif isinstance(message, Observed):
            for observation in message.observations:
                self._observe(observation)
        elif isinstance(message, Members):
            self._meet(message)

    def _locate(self, zone: str) -> None:
        """Say to the core where this replica is: in the zone that was set, else in that of its node."""
        place = Place(self.settings.node, self.settings.zone or zone)
        if place != self._place:
            self._place = place
            self.router.set_place(place)

    def _meet(self, told: Members) -> None:
        """Take the list of replicas; one that lacks this replica says that another life has taken its name."""
        ids = frozenset(member.id for member in told.live)
        if self.me.id not in ids:
            self.superseded.set()
            return
        sharing = sum(not member.stopping for member in told.live)
        self.router.set_members(ids, self.clock(), answers=told.answers, left=told.left, sharing=sharing)
        self.peers.set(told.live, told.left)

    def _observe(self, observation: Observation) -> None:
        """Take in one observation; one that the core chokes on must not keep the others from it."""
        try:
            self.router.apply(observation, self.clock())
        except Exception:
            log.exception("could not be taken in: %s", type(observation).__name__)
        else:
            self.synced = self.synced or isinstance(observation, Snapshot)

    def health(self) -> Health:
        """Return what the probes answer. A Kubernetes side that is away is said, and no reason to take us out."""
        why = self.child_health.api_error
        missing = "has not seen a whole list yet" + (f": {why}" if why else "")
        synced = Check("synced", self.synced, "" if self.synced else missing)
        serving = Check("serving", not self.stopping, "stopping: no new requests" if self.stopping else "")
        # A replica that knows what keeps it from its first list has started: to restart it would mend nothing.
        started = Check("listed", self.synced or bool(why), synced.message)
        return Health(live=self._kubernetes_checks(), ready=(synced, serving), started=(started,))

    def _kubernetes_checks(self) -> tuple[Check, ...]:
        if self.kubernetes is None:
            return ()
        away = "" if self.kubernetes.alive else f"away, restarted {self.kubernetes.restarts} times; serving on"
        holder = f"held by {self.child_health.holder or 'nobody that is known'}"
        trouble = away or self.child_health.api_error
        return Check("kubernetes", ok=True, message=trouble), Check("lease", ok=True, message=holder)

    def _leader(self) -> bool | None:
        return None if self.kubernetes is None else self.kubernetes.alive and self.child_health.leader

    def _watch_age(self) -> float | None:
        heard = max(self.child_health.last_event_at, self.child_health.last_list_at)
        return time.monotonic() - heard if heard else None

    def _engine_told(self, uid: str, reading: Reading) -> None:
        self.router.engine_told(uid, reading, self.clock())

    def _desire(self, desired: Desired) -> None:
        if self.kubernetes is not None:
            self.kubernetes.desire(desired)

    def _cordon(self, uid: str, draining: bool, generation: int) -> None:
        if self.kubernetes is not None:
            self.kubernetes.cordon(Cordon(uid, draining, generation))

    def _mark(self, uid: str, mark: Mark) -> None:
        """Have a drain's mark put on the pod."""
        if self.kubernetes is not None and mark.kind is DrainKind.MANUAL:
            self.kubernetes.cordon(Cordon(uid, draining=True, generation=mark.generation))
        elif self.kubernetes is not None:
            self.kubernetes.mark_gate(GateMark(uid, mark.incarnation))

    def _token(self) -> str | None:
        """Return the token that this replica shows to others, None while there is none."""
        try:
            return Path(self.settings.peer_token_file).read_text().strip() or None
        except OSError:
            return None

    async def run(self, *more: Coroutine[None, None, None]) -> None:
        """Serve until SIGTERM or SIGINT, then let what is in flight finish. A second signal ends it at once.

        ``more`` are jobs that run as long. CannotListenError when a port is taken, ReplicaFailedError when a job ended
        by a mistake of the program.
        """
        stop = Stop()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            await stack.enter_async_context(running([*self._jobs(session), *more], stop.fail))
            stack.push_async_callback(self._leave)
            self._doors = (self.proxy.runner(), self.routing.runner())
            where = [await listen(stack, self.settings.host, listener) for listener in self._listeners()]
            stack.push_async_callback(self.proxy.close)
            log.info("serving: OpenAI proxy on %s, /route on %s, admin on %s", *where)
            await self._until_stopped(stop)
        if stop.failed:
            raise ReplicaFailedError

    def _jobs(self, session: aiohttp.ClientSession) -> Iterable[Coroutine[None, None, None]]:
        yield Control(
            self.router,
            self.clock,
            self.changes,
            cut=self.proxy.cut,
            desire=self._desire,
            gates_seen=self.admin.gates_seen,
            ask=_Asker(session),
            mark=self._mark if self.kubernetes else None,
            elsewhere=self.peers.elsewhere,
        ).run()
        spread = Random()  # noqa: S311 - spreads load, keeps no secret
        yield Scraper(self.router.engines, self._engine_told, spread).run()
        if self.kubernetes is not None:
            yield self.kubernetes.run()
            yield self.peers.run(session)
            yield self._watch_name()

    async def _watch_name(self) -> None:
        """End by a mistake when another life takes this replica's name: it is no member, and may not pick any more."""
        await self.superseded.wait()
        self.router.close()
        raise NameTakenError(f"another replica runs under the name {self.settings.replica!r}; give each its own")

    async def _leave(self) -> None:
        """Leave the members: everything has been served, or is cut by now."""
        if self.kubernetes is not None:
            await self.kubernetes.leave()

    def _listeners(self) -> tuple[Listener, ...]:
        """Return the ports; admin last, because from then on the replica may be found ready."""
        settings, (proxy, routing) = self.settings, self._doors
        return (
            Listener("OpenAI proxy", "proxy_port", proxy, settings.proxy_port),
            Listener("routing", "routing_port", routing, settings.routing_port),
            Listener("admin", "admin_port", self.admin.runner(), settings.admin_port),
        )

    async def _until_stopped(self, stop: Stop) -> None:
        """Wait for a reason to stop; then be unready, go on taking what still arrives, refuse, and finish."""
        await stop.next()
        self.stopping = True
        if self.kubernetes is not None:
            self.kubernetes.stopping()
        finishing = asyncio.create_task(self._finish())
        again = asyncio.create_task(stop.next())
        saying = asyncio.create_task(self._say_what_is_left())
        await asyncio.wait({finishing, again}, return_when=asyncio.FIRST_COMPLETED)
        for task in (finishing, again, saying):
            task.cancel()
        log.info("stopped; not waited for: %s", self._left() or "nothing")
        self.router.close()

    async def _say_what_is_left(self) -> None:
        """Say what is waited for, at once and again and again: whoever stops a replica must not take it for hung."""
        deadline = self.clock() + self.settings.settle_seconds + self.settings.shutdown_seconds
        while True:
            what, seconds = self._left() or "clients to turn elsewhere", max(0.0, deadline - self.clock())
            log.info("stopping: waits for %s, %.0f s at most; a second signal ends it at once", what, seconds)
            await self._sleep(SAY_SECONDS)

    def _left(self) -> str:
        """Return in words what is in flight, empty for nothing."""
        held = self.router.held(self.clock())
        counts = {"request": max(held.carried, self.proxy.in_flight()), "lease": held.leases}
        oldest = f", the oldest {held.seconds:.0f} s old" if held.carried + held.leases else ""
        return " and ".join(counted(count, what) for what, count in counts.items() if count) + oldest

    async def _finish(self) -> None:
        """Take what arrives until nobody sends here any more, then new requests on old connections only, and finish.

        The routing door gives nothing new then, and hears of ends as long as there are leases.
        """
        for door in self._doors:
            door.leave()
        await self._sleep(self.settings.settle_seconds)
        proxy, _ = self._doors
        await proxy.stop_listening()
        self.routing.close()
        deadline = self.clock() + self.settings.shutdown_seconds
        # Polled, because ends of requests are too many to announce each.
        while self._is_needed() and self.clock() < deadline:
            await self._sleep(FINISH_POLL_SECONDS)

    def _is_needed(self) -> bool:
        """Whether anything is in flight, or a client may be about to send a request on a connection that it keeps."""
        proxy, _ = self._doors
        return bool(proxy.open_connections() or self._in_flight())

    def _in_flight(self) -> int:
        """Return what keeps a stopping replica: attempts, leases, and requests whose client has yet to read the end."""
        return max(self.router.in_flight(), self.proxy.in_flight())


def _member(settings: Settings) -> Member:
    """Return who this life of the replica is for the others."""
    address = settings.advertise_address or own_address(settings.host)
    identity = f"{settings.replica}-{secrets.token_hex(4)}"
    return Member(identity, join_host_port(address, settings.admin_port), settings.pod_uid)


class _Asker:
    """Asks an engine whether it is idle."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, address: str, engine: str) -> bool | None:
        host, port = split_host_port(address)
        gauges = await Engine(self._session, family(engine), host, port).gauges()
        return None if gauges is None else gauges.idle


async def run_in_cluster(settings: Settings) -> None:
    """Run one replica with its Kubernetes child."""
    await Replica(settings, in_cluster=True).run()


async def serve_documents(settings: Settings, path: Path) -> None:
    """Run one replica on the documents of a file."""
    replica = Replica(settings, in_cluster=False)
    watch = DocumentWatch(path, replica.apply)
    watch.load()
    await replica.run(watch.run())
