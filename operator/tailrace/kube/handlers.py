"""The watches, run by kopf. Only this file and ``webhook`` import it.

kopf cancels every task of the loop it stops in, and takes the signal handlers of the main thread. A watch that meets
an error it does not know ends for good, while the others and the operator itself run on. So kopf lives in a thread and
loop of its own, gets raw events only (it writes nothing to any object), and is started again with back-off whenever it
or one of its watches ends. What it misses meanwhile, the full lists bring.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import kopf
from kubernetes.aio import client

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import PAGE, Document, Resource
from tailrace.kube.trim import TRIMS

log = logging.getLogger(__name__)

Sink = Callable[[Resource, str | None, Document], None]
LABELLED = (objects.PODS, objects.DEPLOYMENTS, objects.REPLICA_SETS, objects.BUDGETS)
FIRST_RESTART_SECONDS = 0.5
LAST_RESTART_SECONDS = 15.0
STABLE_SECONDS = 60.0
"""Watches that lasted so long begin a new row of restarts."""

ENDING_SECONDS = 3.0
"""How long kopf may take to end. It lets its workers finish, and now and then never ends when a watch was lost."""

LOOK_SECONDS = 0.5
"""Between two looks at whether every watch still runs."""

WORKER_IDLE_SECONDS = 0.2
"""How long kopf keeps an object's worker after its last event, and with it the whole object: its own 5 s keep a list
of thousands in memory at once."""

WATCH_TASK = "watcher for "
"""How kopf begins the names of its watches' tasks."""

IDENTITY: Any = "tailrace"
"""Used in peering only, which is off. Without it kopf asks for the user's name, and the uid of a container has none."""


class Watches:
    """Hands every event to ``sink``, on the loop that calls ``start``; a sink that fails loses that event only."""

    def __init__(
        self, load: Callable[[], Awaitable[client.Configuration]], namespaces: Sequence[str], sink: Sink
    ) -> None:
        """Take how to read the credentials, the namespaces to watch (none: all), and where events go."""
        self._load = load
        self._namespaces = tuple(namespaces)
        self._sink = sink
        self._events: deque[tuple[Resource, str | None, Document]] = deque()
        self._due = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._kinds: tuple[Resource, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, kinds: Collection[Resource]) -> None:
        """Start watching these kinds, for as long as the process lives or until ``stop``.

        Only what may be listed may be given: one watch that is forbidden ends them all, again and again.
        """
        self._kinds = tuple(kinds)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="watches", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; it does within seconds, and nobody needs to wait for it."""
        self._stop.set()

    # In threads of their own: the watches', and one for each life of kopf

    def _run(self) -> None:
        live_again(self._live, self._stop, "a watch has ended; all of them start again")

    def _live(self) -> None:
        """Watch until told to stop, or until one of the watches has ended. A kopf that does not stop is left behind."""
        ended = threading.Event()
        life = threading.Thread(target=self._run_kopf, args=(ended,), name="kopf", daemon=True)
        life.start()
        ended.wait()
        life.join(ENDING_SECONDS)
        if life.is_alive():
            log.warning("kopf did not end within %.0f s and is left behind", ENDING_SECONDS)

    def _run_kopf(self, ended: threading.Event) -> None:
        try:
            asyncio.run(self._operate(ended))
        except Exception:
            log.exception("the watches failed")
        finally:
            ended.set()

    async def _operate(self, ended: threading.Event) -> None:
        failing = asyncio.create_task(self._until_a_watch_has_ended())
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((failing, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.set()
            failing.cancel()
            watching.cancel()
            (outcome,) = await asyncio.gather(watching, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def _watch(self) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in self._kinds:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(self._handler(kind))
        await kopf.operator(
            registry=registry,
            settings=kopf_settings(),
            standalone=True,
            identity=IDENTITY,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )

    async def _until_a_watch_has_ended(self) -> None:
        """Return when kopf has lost a watch, or is to stop. It logs the loss and goes on; nothing of its API tells."""
        watches: set[asyncio.Task[Any]] = set()
        while not self._stop.is_set() and not any(watch.done() for watch in watches):
            await asyncio.sleep(LOOK_SECONDS)
            watches |= {task for task in asyncio.all_tasks() if task.get_name().startswith(WATCH_TASK)}

    async def _login(self, **_: object) -> kopf.ConnectionInfo:
        return await connection(await self._load())

    def _handler(self, kind: Resource) -> Callable[..., Awaitable[None]]:
        # A plain function would be run by a pool of threads.
        async def handle(event: dict[str, Any], **_: object) -> None:
            self._events.append((kind, event["type"], TRIMS[kind](event["object"])))
            self._have_it_delivered()

        handle.__name__ = kind.plural
        return handle

    def _have_it_delivered(self) -> None:
        """Wake the caller's loop, once for all events it has not begun on. A life that was left behind may call too."""
        with self._lock:
            if self._due or self._loop is None or self._loop.is_closed():
                return
            self._due = True
        self._loop.call_soon_threadsafe(self._deliver)

    # In the caller's loop

    def _deliver(self) -> None:
        with self._lock:
            self._due = False
        for _ in range(len(self._events)):
            event = self._events.popleft()
            try:
                self._sink(*event)
            except Exception:
                log.exception("an event about %s %s was lost", event[0].plural, objects.key(event[2]))


def live_again(live: Callable[[], None], stop: threading.Event, ended: str) -> None:
    """Call ``live`` until ``stop`` is set, with back-off, and log ``ended`` whenever it has returned before that."""
    delay = FIRST_RESTART_SECONDS
    while not stop.is_set():
        started = time.monotonic()
        live()
        delay = FIRST_RESTART_SECONDS if time.monotonic() - started > STABLE_SECONDS else delay
        if not stop.is_set():
            log.warning("%s in %.1f s", ended, delay)
        stop.wait(delay)
        delay = min(2 * delay, LAST_RESTART_SECONDS)


def kopf_settings() -> kopf.OperatorSettings:
    """Return settings with which kopf writes nothing, kills nothing, and tries again soon."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.queueing.idle_timeout = WORKER_IDLE_SECONDS
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.watching.chunk_size = PAGE
    settings.watching.connect_timeout = 5.0
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 60.0
    settings.networking.error_backoffs = (0.25, 0.5, 1.0, 1.0)
    settings.networking.trust_env = True
    for kind in LABELLED:
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = names.LABEL_SERVER
    return settings


async def connection(configuration: client.Configuration) -> kopf.ConnectionInfo:
    """Return the credentials of the other client as kopf wants them."""
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=header.split(" ", 1)[-1] or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        trust_env=True,
    )
