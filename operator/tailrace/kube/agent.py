"""The child: puts the pieces together, and nothing else.

Everything that watches or answers runs on every replica, and so do the marks that a replica was asked for and its own
record; everything else that writes runs on the one that leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from tailrace.core.model import Snapshot
from tailrace.kube import members, resync, reviews
from tailrace.kube.client import Api, ApiError, Document, Resource, load
from tailrace.kube.cordons import Cordons, mark_gate
from tailrace.kube.gpumemory import Measurer
from tailrace.kube.handlers import Watches
from tailrace.kube.leader import Leader, installation
from tailrace.kube.lease import Election
from tailrace.kube.mailbox import Mailbox
from tailrace.kube.members import Calling, Roll, SupersededError
from tailrace.kube.pipe import Pipe
from tailrace.kube.trouble import Trouble
from tailrace.kube.view import View
from tailrace.kube.webhook import Webhook
from tailrace.link import (
    ChildHealth,
    Cordon,
    Cordoned,
    Desired,
    GateMark,
    Leave,
    Member,
    Members,
    Message,
    Observed,
    Review,
    Stopping,
)
from tailrace.settings import Settings

log = logging.getLogger(__name__)

BATCH = 500
HEALTH_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 5.0
LEAVE_SECONDS = 2.0


class Agent:
    """One replica's Kubernetes side. Without ``me`` it has no data plane behind it, and is no member."""

    def __init__(self, settings: Settings, pipe: Pipe, api: Api, me: Member | None = None) -> None:
        self._settings = settings
        self._pipe = pipe
        self._api = api
        self._mailbox = Mailbox()
        self._identity = f"{settings.replica}_{secrets.token_hex(4)}"
        measurer = Measurer(settings.gpu_memory_labels)
        self._view = View(emit=self._mailbox.put, touched=self._touched, strayed=self._strayed, measure=measurer)
        self._leader = Leader(
            api,
            self._view,
            settings,
            identity=self._identity,
            explain=measurer.explain,
            leading=lambda: self._election.leading,
        )
        self._election = Election(
            api,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=self._identity,
            seconds=settings.lease_seconds,
            renew_seconds=settings.lease_renew_seconds,
            monotonic=time.monotonic,
            wall=time.time,
            changed=self._leader.lead,
        )
        self._cordons = Cordons(api, self._view, self._cordoned)
        self._calling = None if me is None else self._call_the_roll(me)
        self._watches = Watches(lambda: load(settings.kubeconfig), settings.watch_namespaces, self._event)
        self._webhook = _webhook(settings, self._view) if settings.webhook_certificates else None
        self._asked: set[asyncio.Task[None]] = set()
        self._last_event_at = 0.0
        self._last_list_at = 0.0
        self._listing = Trouble("listing the cluster", "what was listed before stands")
        self._leaving = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        """Run until the parent goes or SIGTERM; the Lease is given back then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leaving.set)
        parts = (self._listen, self._tell, self._tell_health, self._join)
        writers = (self._election.run, self._leader.run, self._cordons.run)
        tasks = [loop.create_task(part()) for part in (*parts, *writers)]
        leaving = loop.create_task(self._leaving.wait())
        if self._webhook is not None:
            self._webhook.start()
        try:
            done, _ = await asyncio.wait([leaving, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {leaving}:
                if (error := task.exception()) is not None:
                    log.error("the Kubernetes side ends", exc_info=error)
        finally:
            self._watches.stop()
            if self._webhook is not None:
                self._webhook.stop()
            for task in (leaving, *tasks):
                task.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leave(), LEAVE_SECONDS)

    async def _leave(self) -> None:
        if self._ended:
            await asyncio.gather(self._change_record(members.left), self._election.release())
        else:
            await self._election.release()

    def _call_the_roll(self, me: Member) -> Calling:
        settings = self._settings
        roll = Roll(
            self._api,
            me,
            namespace=settings.namespace,
            lease=settings.lease_name,
            replica=settings.replica,
            monotonic=time.monotonic,
        )
        return Calling(roll, self._pipe.send, lambda: self._election.leading)

    async def _change_record(self, how: Callable[[Document], Document]) -> None:
        if self._calling is not None:
            await self._calling.change(how)

    # The pipe

    async def _listen(self) -> None:
        while (message := await self._pipe.receive()) is not None:
            self._heard(message)
        log.info("the parent has gone")

    def _heard(self, message: Message) -> None:
        match message:
            case Desired():
                self._leader.desire(message)
                if self._calling is not None:
                    self._calling.want(message.members_wanted)
            case Review():
                self._background(self._review(message))
            case Cordon():
                self._cordons.take(message)
            case GateMark():
                self._background(self._mark_gate(message))
            case Stopping():
                self._background(self._change_record(members.stopping))
            case Leave():
                self._ended = True
                self._leaving.set()
            case _:
                log.warning("a message that only a parent receives: %s", type(message).__name__)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _review(self, review: Review) -> None:
        await self._pipe.send(await reviews.answer(self._api, review))

    async def _cordoned(self, cordon: Cordon) -> None:
        await self._pipe.send(Cordoned(cordon))

    async def _mark_gate(self, told: GateMark) -> None:
        pod = self._view.pod(told.uid)
        try:
            if pod is not None:
                await mark_gate(self._api, pod, told)
        except ApiError as error:
            log.warning("gate mark %s: %s", told.uid, error)

    async def _tell(self) -> None:
        while True:
            await self._pipe.send(Observed(await self._mailbox.take(BATCH)))

    async def _tell_health(self) -> None:
        while True:
            await self._pipe.send(
                ChildHealth(
                    last_event_at=self._last_event_at,
                    last_list_at=self._last_list_at,
                    leader=self._election.leading,
                    holder=self._election.holder,
                    api_error=self._trouble(),
                    zone=self._zone(),
                )
            )
            await asyncio.sleep(HEALTH_SECONDS)

    def _zone(self) -> str:
        node = self._view.node(self._settings.node)
        return "" if node is None else node.zone

    def _trouble(self) -> str:
        """Return what keeps this replica from seeing the cluster; before its first list it has to register."""
        members = self._calling.trouble.said if self._calling is not None else ""
        return self._listing.said or (members and f"members: {members}")

    # The cluster

    def _touched(self, key: str) -> None:
        self._leader.touch(key)

    def _strayed(self, pod: Document) -> None:
        self._leader.stray(pod)

    def _event(self, kind: Resource, change: str | None, document: Document) -> None:
        self._last_event_at = time.monotonic()
        self._view.on_event(kind, change, document)

    async def _join(self) -> None:
        """Register first, list the pods then: whoever does not know this replica drains no pod that it does not see."""
        if self._calling is None:
            await self._keep_listing()
            return
        try:
            await self._calling.register()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._calling.run())
                group.create_task(self._keep_listing())
        except* SupersededError as superseded:
            log.critical("another life has taken this replica's name: %s", superseded.exceptions[0])
            await self._pipe.send(Members(0, (), frozenset()))
            await self._leaving.wait()

    async def _keep_listing(self) -> None:
        retry = FIRST_RETRY_SECONDS
        watched: frozenset[Resource] = frozenset()
        while True:
            listed = await self._list()
            if listed and not watched:
                watched = listed
                self._watches.start(watched)
            retry = FIRST_RETRY_SECONDS if listed else min(2 * retry, LAST_RETRY_SECONDS)
            await asyncio.sleep(self._settings.resync_seconds if listed else retry)

    async def _list(self) -> frozenset[Resource]:
        """List everything and return the kinds that could be; a list that fails changes nothing and returns none."""
        try:
            lists = await resync.list_everything(self._api, self._settings.watch_namespaces, self._view.kept)
        except ApiError as error:
            self._listing.met(error)
            return frozenset()
        self._view.on_lists(lists)
        snapshot: Snapshot = self._view.snapshot()
        self._mailbox.put(snapshot)
        self._last_list_at = time.monotonic()
        self._listing.over()
        self._leader.resynced()
        self._cordons.resynced()
        return frozenset(kind for kind, _, _ in lists)


def _webhook(settings: Settings, view: View) -> Webhook:
    return Webhook(
        lambda: load(settings.kubeconfig),
        view.servers,
        installation(settings),
        host=settings.host,
        port=settings.webhook_port,
        certificates=Path(settings.webhook_certificates),
    )
