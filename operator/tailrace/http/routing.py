"""The routing door: an ingress asks where to send a request, sends it there itself, and says when it is done.

It suits nginx ``auth_request``: headers alone ask and answer. That module lets only 2xx, 401 and 403 through; on any
other status nginx answers 500 itself unless ``error_page`` maps it, and Lua or njs can read the real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any

from aiohttp import web

from tailrace.core.model import Outcome, Pick, Refusal, RefusalCode, Request
from tailrace.core.router import Completion, Router
from tailrace.http.ask import Reader
from tailrace.http.body import Bodies
from tailrace.http.dispatch import Dispatch, Route, post
from tailrace.http.errors import DoorError, bad_request, refused
from tailrace.http.headers import DESTINATION
from tailrace.http.observer import Observer
from tailrace.http.serving import runner
from tailrace.settings import Settings

DOOR = "route"
REQUEST = "x-tailrace-request"
EXPIRES = "x-tailrace-expires-seconds"
SERVED_MODEL = "x-tailrace-served-model"
"""The name the engine knows the model by, when it differs from the one asked for: the ingress should rewrite it."""

_OUTCOMES = {o.value: o for o in (Outcome.COMPLETED, Outcome.FAILED, Outcome.CLIENT_GONE)}
_COMPLETE = re.compile(r"/complete/([^/]+)")
_RENEW = re.compile(r"/renew/([^/]+)")


class RoutingDoor:
    """Answers where a request should go. Picks made here are leases, because nobody here sees their end."""

    def __init__(self, router: Router, clock: Callable[[], float], settings: Settings, observer: Observer) -> None:
        self._router = router
        self._clock = clock
        self._observer = observer
        self._reader = Reader(image_tokens=settings.image_tokens, output_tokens=settings.output_tokens)
        self._bodies = Bodies(
            limit=settings.max_body_bytes, budget=settings.body_budget_bytes, seconds=settings.body_seconds
        )

    def runner(self) -> web.BaseRunner:
        """Return what runs the door; see ``serving.runner``."""
        methods = {"GET": self._route, "POST": self._route}
        routes = [Route("/route", methods), post(_COMPLETE, self._complete), post(_RENEW, self._renew)]
        return runner(Dispatch(routes, unknown="the routing port serves /route, /complete/{request}, /renew/{request}"))

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        began = perf_counter()
        model, code = "", ""
        self._observer.started(DOOR)
        try:
            asked = self._asked(request, await self._bodies.document(request))
            pick = self._router.acquire(asked, self._clock())
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

    def _asked(self, request: web.BaseRequest, document: Mapping[str, Any]) -> Request:
        def said(name: str) -> Any:  # noqa: ANN401 - JSON
            return request.headers.get(f"x-tailrace-{name}") or request.query.get(name) or document.get(name)

        model = said("model")
        if not isinstance(model, str) or not model:
            raise bad_request(
                "model_missing",
                "name the model: header x-tailrace-model, query ?model=, or the field 'model' of a JSON body",
                "model",
            )
        tokens = said("tokens")
        estimate = self._reader.tokens(dict(document)) if tokens is None else _whole(tokens)
        namespace = said("namespace")
        return Request(model, estimate, namespace if isinstance(namespace, str) else None, leased=True)

    def _answer(self, pick: Pick) -> web.StreamResponse:
        expires = int((pick.expires_at or 0.0) - self._clock())
        headers = {DESTINATION: pick.address, REQUEST: pick.attempt, EXPIRES: str(expires)}
        answer: dict[str, object] = {"endpoint": pick.address, "request": pick.attempt, "expiresSeconds": expires}
        if pick.rewrite is not None:
            headers[SERVED_MODEL] = answer["model"] = pick.rewrite
        return web.json_response(answer, headers=headers)

    async def _complete(self, request: web.BaseRequest, attempt: str) -> web.StreamResponse:
        outcome = _outcome(await self._bodies.document(request))
        done = self._router.complete(attempt, outcome, self._clock())
        if done is Completion.UNKNOWN:
            raise _unknown(attempt)
        return web.json_response({"request": attempt, "completed": done.value})

    async def _renew(self, _: web.BaseRequest, attempt: str) -> web.StreamResponse:
        expires_at = self._router.renew(attempt, self._clock())
        if expires_at is None:
            raise _unknown(attempt)
        expires = int(expires_at - self._clock())
        return web.json_response(
            {"request": attempt, "expiresSeconds": expires}, headers={REQUEST: attempt, EXPIRES: str(expires)}
        )


def _whole(value: object) -> int:
    """Return the number of tokens; DoorError 400 when it is none."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise bad_request("tokens_invalid", "'tokens' must be a whole number, 0 or more; or leave it out", "tokens")
    return max(1, int(text))


def _outcome(document: Mapping[str, Any]) -> Outcome:
    said = document.get("outcome", Outcome.COMPLETED.value)
    outcome = _OUTCOMES.get(said) if isinstance(said, str) else None
    if outcome is None:
        raise bad_request("outcome_invalid", f"'outcome' must be one of {', '.join(_OUTCOMES)}", "outcome")
    return outcome


def _unknown(attempt: str) -> DoorError:
    return DoorError(
        HTTPStatus.NOT_FOUND,
        "request_not_found",
        f"this replica has no lease {attempt!r}: it ran out long ago, or another replica gave it; ask that one",
    )
