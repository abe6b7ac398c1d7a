"""The part of the admin door that says where a request would go, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from tailrace.core.router import Router
from tailrace.http.asked import Asker
from tailrace.http.auth import Guard
from tailrace.http.body import Bodies
from tailrace.http.dispatch import Route
from tailrace.http.traits import session_of
from tailrace.http.views import explanation_view
from tailrace.settings import Settings

PICK_PATH = "/debug/pick"


class PickDoor:
    """Explains picks and makes none.

    The request is given as to /route, or as a client would send it; ``?session=`` stands for the header of a session.
    """

    def __init__(self, router: Router, clock: Callable[[], float], guard: Guard, settings: Settings) -> None:
        self._router = router
        self._clock = clock
        self._guard = guard
        self._asker = Asker(router, settings)
        self._bodies = Bodies(
            limit=settings.max_body_bytes, budget=settings.body_budget_bytes, seconds=settings.body_seconds
        )

    def routes(self) -> list[Route]:
        """Return what the door serves."""
        return [Route(PICK_PATH, {"GET": self._explain, "POST": self._explain})]

    async def _explain(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._guard.read(request)
        asked = self._asker.asked(request, await self._bodies.document(request), leased=False)
        session = request.query.get("session")
        if session and asked.traits is not None:
            asked = asked._replace(traits=replace(asked.traits, session=session_of(session)))
        return web.json_response(explanation_view(asked, self._router.explain(asked, self._clock())))
