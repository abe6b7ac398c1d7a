"""The admin door: health, metrics, endpoints, why a pick, and the drains that gates and people ask for."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from tailrace.changes import Changes
from tailrace.core.model import DrainStatus
from tailrace.core.router import Router
from tailrace.http.auth import Guard
from tailrace.http.body import Bodies
from tailrace.http.dispatch import Dispatch, Route, get, post
from tailrace.http.errors import DoorError, bad_request
from tailrace.http.health import Check, Health, report
from tailrace.http.pickdoor import PickDoor
from tailrace.http.serving import Runner, runner
from tailrace.http.views import drain_view, find_uid, namespace_of, router_view
from tailrace.settings import Settings

GATE_REASON = "gate"
MAX_BODY_BYTES = 16 * 1024
MAX_WAIT_SECONDS = 60.0
MAX_GATES = 20_000
"""How many gates are remembered as seen: more pods than one cluster's routers are meant for."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GATE = re.compile(r"/endpoints/(.+)/gate")
_DRAIN = re.compile(r"/endpoints/(.+)/drain")
_RESUME = re.compile(r"/endpoints/(.+)/resume")

Cordon = Callable[[str, bool, int], Awaitable[None] | None]
"""(uid, draining, generation): make a manual drain durable, or its end."""


class AdminDoor:
    """Answers on the admin port.

    ``guard`` says who may. ``cordon`` None: drains by hand need not outlive this process. ``more``: what else the port
    serves.
    """

    def __init__(
        self,
        router: Router,
        clock: Callable[[], float],
        settings: Settings,
        *,
        guard: Guard,
        health: Callable[[], Health],
        render_metrics: Callable[[], bytes],
        cordon: Cordon | None,
        changes: Changes,
        more: Sequence[Route] = (),
    ) -> None:
        self._router = router
        self._clock = clock
        self._guard = guard
        self._health = health
        self._render_metrics = render_metrics
        self._cordon = cordon
        self._changes = changes
        self._bodies = Bodies(limit=MAX_BODY_BYTES, budget=settings.body_budget_bytes, seconds=settings.body_seconds)
        self._picks = PickDoor(router, clock, guard, settings)
        self._generation = 0
        self._gates: OrderedDict[str, None] = OrderedDict()
        self._more = more

    def gates_seen(self) -> frozenset[str]:
        """Return the uids of the pods whose gate has said hello to this replica."""
        return frozenset(self._gates)

    def runner(self) -> Runner:
        """Return what runs the door; see ``serving.runner``."""
        routes = [
            get("/livez", self._livez),
            get("/readyz", self._readyz),
            get("/startupz", self._startupz),
            get("/metrics", self._metrics),
            get("/endpoints", self._endpoints),
            get("/wait-for-drain", self._wait_for_drain),
            post(_GATE, self._hello),
            post(_DRAIN, self._drain),
            post(_RESUME, self._resume),
            *self._picks.routes(),
            *self._more,
        ]
        paths = "/livez, /readyz, /startupz, /metrics, /debug/pick, /endpoints, /endpoints/{uid}/drain|resume"
        return runner(Dispatch(routes, unknown=f"the admin port serves {paths} and /wait-for-drain"))

    # Health and figures

    async def _livez(self, request: web.BaseRequest) -> web.StreamResponse:
        return _checked(request, self._health().live)

    async def _readyz(self, request: web.BaseRequest) -> web.StreamResponse:
        return _checked(request, self._health().ready)

    async def _startupz(self, request: web.BaseRequest) -> web.StreamResponse:
        return _checked(request, self._health().started)

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._guard.read(request)
        return web.Response(body=self._render_metrics(), headers={"Content-Type": METRICS_TYPE})

    async def _endpoints(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._guard.read(request)
        return web.json_response(router_view(self._router.status()))

    # Drains

    async def _hello(self, request: web.BaseRequest, uid: str) -> web.StreamResponse:
        endpoint = self._router.endpoint(uid)
        await self._guard.gate(request, uid, endpoint.address if endpoint else None)
        self._gates[uid] = None
        self._gates.move_to_end(uid)
        if len(self._gates) > MAX_GATES:
            self._gates.popitem(last=False)
        return web.json_response({"uid": uid, "known": endpoint is not None})

    async def _drain(self, request: web.BaseRequest, pod: str) -> web.StreamResponse:
        asked = await self._bodies.document(request)
        if asked.get("reason") == GATE_REASON:
            return await self._drain_for_gate(request, pod)
        uid = await self._authorise_write(request, pod)
        generation = self._next_generation()
        status = self._router.drain(uid, generation, self._clock())
        await self._make_durable(uid, draining=True, generation=generation)
        return _standing(status, uid)

    async def _drain_for_gate(self, request: web.BaseRequest, uid: str) -> web.StreamResponse:
        endpoint = self._router.endpoint(uid)
        await self._guard.gate(request, uid, endpoint.address if endpoint else None)
        return _standing(self._router.gate_calls(uid, self._clock()), uid)

    async def _resume(self, request: web.BaseRequest, pod: str) -> web.StreamResponse:
        uid = await self._authorise_write(request, pod)
        generation = self._next_generation()
        status = self._router.resume(uid, generation)
        await self._make_durable(uid, draining=False, generation=generation)
        return _standing(status, uid)

    def _next_generation(self) -> int:
        """Return a number above all before: milliseconds, so that other replicas' numbers compare."""
        self._generation = max(int(self._clock() * 1000), self._generation + 1)
        return self._generation

    async def _authorise_write(self, request: web.BaseRequest, pod: str) -> str:
        """Return the uid of the endpoint that is called by it or by its name, if the caller may change it."""
        uid = self._uid(pod)
        endpoint = None if uid is None else self._router.endpoint(uid)
        if endpoint is None:
            raise _unknown(pod)
        await self._guard.write(request, namespace_of(endpoint))
        return endpoint.uid

    def _uid(self, pod: str) -> str | None:
        known = self._router.drain_status(pod) is not None
        return pod if known else find_uid(self._router.status(), pod)

    async def _make_durable(self, uid: str, *, draining: bool, generation: int) -> None:
        under_way = self._cordon(uid, draining, generation) if self._cordon is not None else None
        if inspect.isawaitable(under_way):
            await under_way

    async def _wait_for_drain(self, request: web.BaseRequest) -> web.StreamResponse:
        pod = request.query.get("pod", "")
        seconds = _seconds(request.query.get("timeout", "20"))
        uid = self._uid(pod)
        await self._guard.read(request, uid)
        if uid is None:
            raise _unknown(pod)
        return _standing(await self._wait(uid, self._clock() + seconds), uid)

    async def _wait(self, uid: str, until: float) -> DrainStatus | None:
        """Wait until the endpoint may go, or until then; return how its drain stands."""
        while True:
            revision = self._changes.revision
            status = self._router.drain_status(uid)
            left = until - self._clock()
            if status is None or status.safe_to_delete or left <= 0:
                return status
            await self._changes.wait(left, since=revision)


def _checked(request: web.BaseRequest, checks: tuple[Check, ...]) -> web.StreamResponse:
    well, text = report(checks, verbose="verbose" in request.query)
    return web.Response(status=HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, text=text)


def _standing(status: DrainStatus | None, uid: str) -> web.StreamResponse:
    if status is None:
        raise _unknown(uid)
    return web.json_response(drain_view(status))


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise bad_request(
            "timeout_invalid", f"'timeout' must be whole seconds from 0 to {MAX_WAIT_SECONDS:.0f}", "timeout"
        )
    return min(float(text), MAX_WAIT_SECONDS)


def _unknown(pod: str) -> DoorError:
    return DoorError(
        HTTPStatus.NOT_FOUND,
        "endpoint_not_found",
        f"there is no endpoint {pod!r}; GET /endpoints lists them, give a uid, a name or namespace/name",
    )
