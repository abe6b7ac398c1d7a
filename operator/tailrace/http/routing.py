"""The routing door: an ingress asks where to send a request, sends it there itself, and says when it is done.

It suits nginx ``auth_request``: headers alone ask and answer. That module lets only 2xx, 401 and 403 through; on any
other status nginx answers 500 itself unless ``error_page`` maps it, and Lua or njs can read the real one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from aiohttp import web

from tailrace.core.model import Pick, Refusal, RefusalCode
from tailrace.core.refusals import SHUTTING_DOWN
from tailrace.core.router import Router
from tailrace.http.asked import Asker
from tailrace.http.body import Bodies
from tailrace.http.dispatch import Dispatch, Route, post
from tailrace.http.errors import DoorError, refused
from tailrace.http.given import Given, unknown
from tailrace.http.headers import DESTINATION
from tailrace.http.observer import Observer
from tailrace.http.serving import Runner, runner
from tailrace.settings import Settings

DOOR = "route"
REQUEST = "x-tailrace-request"
EXPIRES = "x-tailrace-expires-seconds"
SERVED_MODEL = "x-tailrace-served-model"
"""The name the engine knows the model by, when it differs from the one asked for: the ingress should rewrite it."""

_LEASE = re.compile(r"/(complete|renew)/([^/]+)")

Forward = Callable[[str, str, object], Awaitable[dict[str, Any] | None]]
"""(complete or renew, attempt, body) -> the answer of the replica that gave the lease, None when it was no other."""


class RoutingDoor:
    """Answers where a request should go. Picks made here are leases, because nobody here sees their end.

    ``forward`` None: there is no other replica.
    """

    def __init__(
        self,
        router: Router,
        clock: Callable[[], float],
        settings: Settings,
        observer: Observer,
        forward: Forward | None = None,
    ) -> None:
        self._router = router
        self._given = Given(router, clock)
        self._forward = forward
        self._clock = clock
        self._observer = observer
        self._asker = Asker(router, settings)
        self._closed = False
        self._bodies = Bodies(
            limit=settings.max_body_bytes, budget=settings.body_budget_bytes, seconds=settings.body_seconds
        )

    def runner(self) -> Runner:
        """Return what runs the door; see ``serving.runner``."""
        methods = {"GET": self._route, "POST": self._route}
        routes = [Route("/route", methods), post(_LEASE, self._lease)]
        return runner(Dispatch(routes, unknown="the routing port serves /route, /complete/{request}, /renew/{request}"))

    def close(self) -> None:
        """Give nothing new from now on; ends and renewals are heard as before."""
        self._closed = True

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        began = perf_counter()
        model, code = "", ""
        self._observer.started(DOOR)
        try:
            asked = self._asker.asked(request, await self._bodies.document(request), leased=True)
            pick = SHUTTING_DOWN if self._closed else self._router.acquire(asked, self._clock())
            if isinstance(pick, Refusal):
                model = "" if pick.code is RefusalCode.UNKNOWN_MODEL else asked.model
                raise refused(pick)
            model = asked.model
            return self._answer(pick)
        except DoorError as error:
            code = error.code
            raise
        finally:
            self._observer.ended(door=DOOR, model=model, code=code, seconds=perf_counter() - began)

    def _answer(self, pick: Pick) -> web.StreamResponse:
        expires = int((pick.expires_at or 0.0) - self._clock())
        headers = {DESTINATION: pick.address, REQUEST: pick.attempt, EXPIRES: str(expires)}
        answer: dict[str, object] = {"endpoint": pick.address, "request": pick.attempt, "expiresSeconds": expires}
        if pick.rewrite is not None:
            headers[SERVED_MODEL] = answer["model"] = pick.rewrite
        return web.json_response(answer, headers=headers)

    async def _lease(self, request: web.BaseRequest, call: str, attempt: str) -> web.StreamResponse:
        document = await self._bodies.document(request)
        answer = self._given.call(call, attempt, document)
        if answer is None and self._forward is not None:
            answer = await self._forward(call, attempt, document)
        if answer is None:
            raise unknown(attempt)
        headers = {REQUEST: attempt}
        if "expiresSeconds" in answer:
            headers[EXPIRES] = str(answer["expiresSeconds"])
        return web.json_response(answer, headers=headers)
