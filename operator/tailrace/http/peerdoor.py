"""The part of the admin door that other replicas call."""

from __future__ import annotations

import re

from aiohttp import web

from tailrace.http.auth import Guard
from tailrace.http.body import Bodies
from tailrace.http.dispatch import Route, get, post
from tailrace.http.given import Given, unknown
from tailrace.http.peers import COUNTS_PATH, DRAINS_PATH, Peers
from tailrace.http.words import read_words
from tailrace.settings import Settings

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Words about some ten thousand drains."""

_LEASE = re.compile(r"/peer/(complete|renew)/([^/]+)")


class PeerDoor:
    """Answers other replicas: with words for words, and about leases that were given here."""

    def __init__(self, peers: Peers, given: Given, guard: Guard, settings: Settings) -> None:
        self._peers = peers
        self._given = given
        self._guard = guard
        self._bodies = Bodies(limit=MAX_BODY_BYTES, budget=settings.body_budget_bytes, seconds=settings.body_seconds)

    def routes(self) -> list[Route]:
        """Return what the door serves."""
        return [post(DRAINS_PATH, self._drains), get(COUNTS_PATH, self._counts), post(_LEASE, self._lease)]

    async def _drains(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._guard.peer(request)
        self._peers.heard(*read_words(await self._bodies.document(request)))
        return web.json_response(self._peers.words())

    async def _counts(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._guard.peer(request)
        return web.json_response(self._peers.counts())

    async def _lease(self, request: web.BaseRequest, call: str, attempt: str) -> web.StreamResponse:
        await self._guard.peer(request)
        answer = self._given.call(call, attempt, await self._bodies.document(request))
        if answer is None:
            raise unknown(attempt)
        return web.json_response(answer)
