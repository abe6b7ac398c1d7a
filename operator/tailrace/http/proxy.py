"""The proxy door: the OpenAI API, relayed byte for byte to the endpoint that the core picks."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from http import HTTPStatus
from time import perf_counter

from aiohttp import web

from tailrace.core.model import Request
from tailrace.core.refusals import NOT_SYNCED
from tailrace.core.router import Router
from tailrace.http.ask import Reader, parse_object
from tailrace.http.body import Bodies, Body
from tailrace.http.carry import CLIENT_GONE, Carry, Means
from tailrace.http.dispatch import Dispatch, get, post
from tailrace.http.errors import DoorError, refused
from tailrace.http.headers import NAMESPACE, REQUEST_ID, request_id
from tailrace.http.observer import Observer
from tailrace.http.serving import Runner, runner
from tailrace.http.turns import Turns
from tailrace.http.upstream import Upstream
from tailrace.settings import Settings

DOOR = "proxy"
RELAYED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")

CLOSE_SECONDS = 5.0
"""How long ending everything may take: it waits for nothing but the loop."""

_ONE_MODEL = re.compile(r"/v1/models/(.+)")


class ProxyDoor:
    """Relays OpenAI requests. Made on any thread, used on the event loop.

    ``clock`` gives the seconds that the router counts in.
    """

    def __init__(self, router: Router, clock: Callable[[], float], settings: Settings, observer: Observer) -> None:
        self._means = Means(router, clock, observer, Upstream(), Turns(router, clock), {})
        self._reader = Reader(image_tokens=settings.image_tokens, output_tokens=settings.output_tokens)
        self._bodies = Bodies(
            limit=settings.max_body_bytes, budget=settings.body_budget_bytes, seconds=settings.body_seconds
        )
        self._opened_at = int(clock())
        self._under_way = 0

    def runner(self) -> Runner:
        """Return what runs the door; see ``serving.runner``."""
        routes = [post(path, self._relay) for path in RELAYED]
        routes += [get("/v1/models", self._models), get(_ONE_MODEL, self._model)]
        return runner(Dispatch(routes, unknown=f"the proxy serves {', '.join(RELAYED)} and /v1/models"))

    def in_flight(self) -> int:
        """Return how many requests are under way, those included whose client has yet to read the last bytes."""
        return self._under_way

    def cut(self, attempt_ids: Iterable[str]) -> None:
        """End these attempts: those without a byte sent are re-routed, streams end with an error. Others' are left."""
        for attempt_id in attempt_ids:
            carry = self._means.live.get(attempt_id)
            if carry is not None:
                carry.cut()

    async def close(self) -> None:
        """End what is still in flight, each with an error, and close the connections. Close the router before."""
        time = asyncio.get_running_loop().time
        until = time() + CLOSE_SECONDS
        self._means.router.dismiss()
        await asyncio.sleep(0)  # those whose turn has just come are under way after this
        while self._means.live and time() < until:
            for carry in list(self._means.live.values()):
                carry.shut_down()
            await asyncio.sleep(0.01)
        await self._means.upstream.close()

    # Relaying

    async def _relay(self, request: web.BaseRequest) -> web.StreamResponse:
        identity = request_id(request.headers, _new_id)
        body = Body(self._bodies.budget)
        self._under_way += 1
        visit = _Visit(self._means.observer, perf_counter)
        try:
            await self._bodies.read(request, body)
            visit.carry = self._carry(request, body, identity, visit)
            return await visit.carry.run()
        except DoorError as error:
            visit.refused(error)
            error.headers.setdefault(REQUEST_ID, identity)
            raise
        except asyncio.CancelledError:
            visit.code = CLIENT_GONE
            raise
        except BaseException:
            visit.code = "internal_error"
            raise
        finally:
            body.drop()
            self._under_way -= 1
            visit.end()

    def _carry(self, request: web.BaseRequest, body: Body, identity: str, visit: _Visit) -> Carry:
        """Read what the body asks for. The document that it holds ends here: it takes many times the body's memory."""
        document = parse_object(body.content)
        ask = self._reader.read(document)
        visit.model = ask.model
        namespace = request.headers.get(NAMESPACE)
        needs = self._means.router.needs(ask.model, namespace)
        traits = None if needs is None else self._reader.traits(document, request.headers, needs, ask.model)
        asked = Request(ask.model, ask.tokens, namespace, traits=traits, patient=True)
        counts = needs is not None and needs.usage
        return Carry(self._means, request, asked, body, identity=identity, stream=ask.stream, counts=counts)

    # Models

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": self._listed(request)})

    async def _model(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        for model in self._listed(request):
            if model["id"] == name:
                return web.json_response(model)
        raise DoorError(
            HTTPStatus.NOT_FOUND,
            "model_not_found",
            f"no InferenceServer serves the model {name!r}; GET /v1/models lists the names that are served",
            param="model",
        )

    def _listed(self, request: web.BaseRequest) -> list[dict[str, object]]:
        """Return the models in OpenAI's shape. ``owned_by`` names the namespaces; ``created`` is when we opened."""
        if not self._means.router.synced:
            raise refused(NOT_SYNCED)
        wanted = request.headers.get(NAMESPACE)
        return [
            {"id": name, "object": "model", "created": self._opened_at, "owned_by": ", ".join(namespaces)}
            for name, namespaces in sorted(self._means.router.names().items())
            if wanted is None or wanted in namespaces
        ]


class _Visit:
    """What the observer is told of one request."""

    __slots__ = ("_began", "_observer", "_time", "carry", "code", "model")

    def __init__(self, observer: Observer, time: Callable[[], float]) -> None:
        self.model = ""
        self.code = ""
        self.carry: Carry | None = None
        self._observer = observer
        self._time = time
        self._began = time()
        observer.started(DOOR)

    def refused(self, error: DoorError) -> None:
        self.code = error.code
        if error.status == HTTPStatus.NOT_FOUND:
            self.model = ""  # names that nobody serves must not become labels

    def end(self) -> None:
        carry = self.carry
        first_at = carry.first_at if carry is not None else None
        self._observer.ended(
            door=DOOR,
            model=self.model,
            code=self.code or (carry.code if carry is not None else ""),
            seconds=self._time() - self._began,
            ttft=None if first_at is None else first_at - self._began,
            itl=None if carry is None else _mean_gap(carry),
        )


def _mean_gap(carry: Carry) -> float | None:
    """Return the mean seconds between chunks of a whole answer of several."""
    if carry.first_at is None or carry.chunks < 3 or not carry.last_at:
        return None
    return (carry.last_at - carry.first_at) / (carry.chunks - 1)


def _new_id() -> str:
    return "req-" + secrets.token_hex(16)
