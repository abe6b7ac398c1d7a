"""What replicas tell each other over their admin ports: which endpoints each drains, and what it has in flight.

A word holds for good (see ``core.drain``), so nothing here needs order, memory or a second try of the same word: each
exchange carries all that is true now, both ways, and the next one comes at once when that changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp

from tailrace.changes import Changes
from tailrace.core.model import Word
from tailrace.core.router import Router
from tailrace.http.errors import RETRY_AFTER, DoorError
from tailrace.http.words import read_counts, read_words, words_view
from tailrace.link import Member

log = logging.getLogger(__name__)

DRAINS_PATH = "/peer/drains"
COUNTS_PATH = "/peer/counts"
COUNT_SECONDS = 5.0
"""Between two questions of the leader for what is in flight: half of the time between two writes of a status."""
REPEAT_SECONDS = 1.0
"""While anything drains, what is true is said at least so often: a word may be lost, and so may its answer."""
PAUSE_SECONDS = 0.05
"""Between two exchanges with one peer: a burst of ends is one word."""
EXCHANGE_SECONDS = 5.0

_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError, DoorError)


class Peers:
    """The other replicas, as last listed; ``run`` keeps a conversation with each."""

    def __init__(
        self,
        router: Router,
        clock: Callable[[], float],
        changes: Changes,
        *,
        token: Callable[[], str | None],
        leading: Callable[[], bool],
    ) -> None:
        """``token``: that of this replica's service account, read anew for each call; None while there is none.

        ``leading``: whether this replica writes statuses, and so wants to know what the others have in flight.
        """
        self._router = router
        self._clock = clock
        self._changes = changes
        self._token = token
        self._leading = leading
        self._counts: dict[str, dict[str, int]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[str, str] = {}
        self._left: frozenset[str] = frozenset()
        self._listed = asyncio.Event()

    def set(self, members: Iterable[Member], left: frozenset[str]) -> None:
        """Take the members, this replica among them or not, and the ids of those whose leaving is on record."""
        self._addresses = {member.id: member.address for member in members if member.id != self._router.member}
        self._left = left
        self._counts = {member: counts for member, counts in self._counts.items() if member in self._addresses}
        self._listed.set()

    def words(self) -> dict[str, Any]:
        """Return what this replica says, as JSON."""
        return words_view(self._router.member, self._router.words(self._clock()))

    def heard(self, member: str, drains: Mapping[str, Word]) -> None:
        """Take in what another replica says."""
        self._router.hear(member, drains, self._clock())

    def counts(self) -> dict[str, Any]:
        """Return what this replica has in flight, by endpoint, as JSON; endpoints without any are left out."""
        found = {each.uid: each.in_flight for each in self._router.status().endpoints if each.in_flight}
        return {"member": self._router.member, "inFlight": found}

    def elsewhere(self, uid: str) -> int:
        """Return what the other replicas had in flight at an endpoint when this one last asked, as leader."""
        return sum(counts.get(uid, 0) for counts in self._counts.values())

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Talk to every other member until cancelled."""
        self._session = session
        talks: dict[tuple[str, str], asyncio.Task[None]] = {}
        try:
            while True:
                self._listed.clear()
                listed = set(self._addresses.items())
                for gone in talks.keys() - listed:
                    talks.pop(gone).cancel()
                for member, address in listed - talks.keys():
                    talks[member, address] = asyncio.create_task(self._attend(member, address))
                await self._listed.wait()
        finally:
            for task in talks.values():
                task.cancel()
            await asyncio.gather(*talks.values(), return_exceptions=True)

    async def _attend(self, member: str, address: str) -> None:
        """Keep both conversations going, whatever fails: nobody else would speak for this replica."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._talk(member, address))
                    group.create_task(self._count(member, address))
            except* Exception:
                log.exception("trouble in talking to %s at %s; beginning anew", member, address)
            await asyncio.sleep(REPEAT_SECONDS)

    async def _count(self, member: str, address: str) -> None:
        """Ask what it has in flight, now and then; while it gives no answer the last one stands."""
        while True:
            if self._leading():
                with suppress(*_FAILURES):
                    status, document = await self._ask(address, COUNTS_PATH)
                    if status == HTTPStatus.OK and document.get("member") == member:
                        self._counts[member] = read_counts(document)
            await asyncio.sleep(COUNT_SECONDS)

    async def _talk(self, member: str, address: str) -> None:
        """Say what is true whenever it has changed, and every second while anything drains."""
        said: dict[str, Any] | None = None
        said_at = float("-inf")
        trouble = ""
        while True:
            revision = self._changes.revision
            words = self.words()
            if words["drains"] and (words != said or self._clock() >= said_at + REPEAT_SECONDS):
                failure = await self._exchange(member, address, words)
                if failure and failure != trouble:
                    log.warning("drains wait for %s at %s, which gives no answer: %s", member, address, failure)
                trouble, said, said_at = failure, None if failure else words, self._clock()
            await asyncio.sleep(REPEAT_SECONDS if trouble else PAUSE_SECONDS)
            await self._changes.wait(REPEAT_SECONDS, since=revision)

    async def _exchange(self, member: str, address: str, words: dict[str, Any]) -> str:
        """Tell and be told; return what went wrong."""
        try:
            status, document = await self._ask(address, DRAINS_PATH, words)
            if status != HTTPStatus.OK:
                return f"it answers {status}: {(document.get('error') or {}).get('message', '')}"
            said_by, drains = read_words(document)
        except _FAILURES as error:
            return str(error) or type(error).__name__
        if said_by != member:
            return f"{said_by} answers there"
        self.heard(said_by, drains)
        return ""

    async def _ask(self, address: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """POST the body as JSON, or GET without one; return status and answer."""
        if self._session is None:
            raise TimeoutError("this replica is not yet ready to talk to others")
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=EXCHANGE_SECONDS)
        async with self._session.request(
            "GET" if body is None else "POST",
            f"http://{address}{path}",
            json=body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
        ) as answer:
            document = await answer.json(content_type=None)
            return answer.status, document if isinstance(document, dict) else {}

    async def forward(self, call: str, attempt: str, body: object) -> dict[str, Any] | None:
        """Pass a completion or renewal (``call``) on to the replica that gave the lease, and return its answer.

        None when the id names no other replica, or that one does not know it. DoorError 410 when the replica has left,
        503 while it gives no answer.
        """
        owner = attempt.rpartition("-")[0]
        if owner in self._left:
            raise _gone(attempt, owner)
        address = self._addresses.get(owner)
        if address is None:
            return None
        status, document = 0, dict[str, Any]()
        with suppress(*_FAILURES):
            status, document = await self._ask(address, f"/peer/{call}/{quote(attempt, safe='')}", body)
        if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise _unreachable(owner)
        return document if status == HTTPStatus.OK else None


def _gone(attempt: str, owner: str) -> DoorError:
    return DoorError(
        HTTPStatus.GONE,
        "replica_gone",
        f"the replica {owner!r}, which gave {attempt!r}, is gone; there is nothing left to complete or renew",
    )


def _unreachable(owner: str) -> DoorError:
    return DoorError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "replica_unreachable",
        f"the replica {owner!r}, which gave this request, gives no answer; ask again",
        headers={RETRY_AFTER: "1"},
    )
