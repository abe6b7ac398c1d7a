"""Reads what engines say of themselves, each at its own interval, and hands it on.

One task and one kept-open connection for each endpoint, so that a slow engine delays its own figures only. The moment
of the first reading and every pause are jittered, because replicas that read in step would hit an engine all at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from tailrace.core.model import EngineAddress, Reading
from tailrace.engines.families import Family, family
from tailrace.engines.reader import split_host_port
from tailrace.engines.readings import NOTHING, merged, read_document, read_exposition
from tailrace.engines.wire import Connection

log = logging.getLogger(__name__)

RECONCILE_SECONDS = 1.0
JITTER = 0.1
"""Pauses differ from the interval by up to this share."""
LONGEST_PAUSE = 10.0
"""Between two readings of an engine that does not answer: it is asked less often, and heard soon when it is back."""
LONGEST_TIMEOUT = 5.0
ASK_AGAIN_SECONDS = 60.0
"""A page that an engine does not serve is left out for so long: most are off or on for the life of a container."""

Sleep = Callable[[float], Awaitable[None]]
Told = Callable[[str, Reading], None]
"""(uid, reading): called for each reading that told something; what is not told any more ages where it is kept."""


class Scraper:
    """Keeps a reader for each engine that ``wanted`` names, by uid, until cancelled."""

    def __init__(
        self,
        wanted: Callable[[], Mapping[str, EngineAddress]],
        told: Told,
        rng: Random,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._wanted = wanted
        self._told = told
        self._rng = rng
        self._sleep = sleep
        self._readers: dict[str, tuple[EngineAddress, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                self._reconcile()
                await self._sleep(RECONCILE_SECONDS)
        finally:
            await self._stop_all()

    def _reconcile(self) -> None:
        wanted = self._wanted()
        for uid in [uid for uid, (address, _) in self._readers.items() if wanted.get(uid) != address]:
            self._readers.pop(uid)[1].cancel()
        for uid in wanted.keys() - self._readers.keys():
            address = wanted[uid]
            self._readers[uid] = (address, asyncio.create_task(self._follow(uid, address)))

    async def _follow(self, uid: str, address: EngineAddress) -> None:
        """Read one engine for as long as it is wanted."""
        pages = Pages(address)
        try:
            await self._keep_reading(uid, address, pages)
        finally:
            pages.close()

    async def _keep_reading(self, uid: str, address: EngineAddress, pages: Pages) -> None:
        pause = address.interval * self._rng.random()
        while True:
            await self._sleep(pause)
            reading = await self._read(uid, pages)
            usual = address.interval if reading != NOTHING else min(max(2 * pause, address.interval), LONGEST_PAUSE)
            pause = usual * (1.0 + JITTER * (2.0 * self._rng.random() - 1.0))

    async def _read(self, uid: str, pages: Pages) -> Reading:
        """Read once and hand it on. A mistake of the program is logged and ends no reader."""
        try:
            reading = await pages.read()
            if reading != NOTHING:
                self._told(uid, reading)
        except Exception:
            log.exception("what the engine of %s says could not be taken in", uid)
            return NOTHING
        return reading

    async def _stop_all(self) -> None:
        tasks = [task for _, task in self._readers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Pages:
    """The pages on which one engine tells of itself."""

    def __init__(self, address: EngineAddress) -> None:
        self._address = address.address
        self._family = family(address.engine)
        self._timeout = min(2 * address.interval, LONGEST_TIMEOUT)
        self._pages = _pages(self._family, address.address)
        self._absent_until = [0.0] * len(self._pages)
        self._trouble = [""] * len(self._pages)

    async def read(self) -> Reading:
        """Return what they tell together; nothing of a page that does not answer in time, or as it should."""
        found = []
        for index, page in enumerate(self._pages):
            if self._absent_until[index] <= asyncio.get_running_loop().time():
                found.append(await self._read(index, *page))
        return merged(found)

    async def _read(self, index: int, connection: Connection, path: str, kind: str) -> Reading:
        try:
            async with asyncio.timeout(self._timeout):
                status, body = await connection.get(path)
            if status != 200:
                self._absent_until[index] = asyncio.get_running_loop().time() + _absence(status)
                return NOTHING
            reading = read_document(body, kind) if kind else await read_exposition(body, self._family)
        except (OSError, TimeoutError):
            return NOTHING
        except ValueError as error:
            self._unreadable(index, path, str(error))
            return NOTHING
        self._trouble[index] = ""
        return reading

    def _unreadable(self, index: int, path: str, why: str) -> None:
        """Log it, once until the page can be read again or is wrong in another way."""
        if why != self._trouble[index]:
            self._trouble[index] = why
            log.warning("%s of the engine at %s cannot be read: %s", path, self._address, why)

    def close(self) -> None:
        """Let go of the connections."""
        for connection, _, _ in self._pages:
            connection.close()


def _absence(status: int) -> float:
    """Return for how long to leave a page out that answered so: one that is switched off says 4xx or 501."""
    return ASK_AGAIN_SECONDS if 400 <= status < 500 or status == 501 else 0.0


def _pages(row: Family, address: str) -> list[tuple[Connection, str, str]]:
    """Return connection, path and kind of each page; the kind of an exposition is empty."""
    host, port = split_host_port(address)
    own = Connection(host, port)
    others = [Connection(host, other) for other in row.metrics_ports if other != port]
    expositions = [(one, row.metrics_path, "") for one in (own, *others) if row.metrics_path is not None]
    return [*expositions, *((own, path, kind) for kind, path in row.documents.items())]
