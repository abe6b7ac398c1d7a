"""A replica's data plane on loopback: a real router, the real doors, scripted engines, and an audit at the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from io import BytesIO
from random import Random
from typing import NamedTuple, Self

import aiohttp
from aiohttp import web
from tests.http.engine import Behaviour, ScriptedEngine, answer_json
from yarl import URL

from tailrace.changes import Changes
from tailrace.core.model import (
    EndpointSeen,
    EndpointSpec,
    ModelSpec,
    PoolSettings,
    ServerSeen,
    ServerSpec,
    Timeouts,
)
from tailrace.core.router import Router
from tailrace.http.admin import AdminDoor, Cordon
from tailrace.http.auth import Guard, Reviewer
from tailrace.http.health import Health
from tailrace.http.proxy import ProxyDoor
from tailrace.http.routing import RoutingDoor
from tailrace.settings import Settings

MODEL = "org/model"
ALIAS = "gpt-4o-mini"
SERVED = "served"
CHAT = "/v1/chat/completions"


class End(NamedTuple):
    door: str
    model: str
    code: str
    seconds: float
    ttft: float | None
    itl: float | None


@dataclass
class Heard:
    """An observer that remembers."""

    running: int = 0
    doors: list[str] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    waits: list[tuple[str, str, float]] = field(default_factory=list)

    def started(self, door: str) -> None:
        self.doors.append(door)
        self.running += 1

    def ended(
        self, *, door: str, model: str, code: str, seconds: float, ttft: float | None = None, itl: float | None = None
    ) -> None:
        self.running -= 1
        self.ends.append(End(door, model, code, seconds, ttft, itl))

    def waited(self, model: str, outcome: str, seconds: float) -> None:
        self.waits.append((model, outcome, seconds))

    def retried(self, reason: str) -> None:
        self.retries.append(reason)


class World:
    """One replica. ``async with`` it; on exit everything must have been given back."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.clock: Callable[[], float] = time.monotonic
        self.changes = Changes()
        self.router = Router("test", booted_at=self.clock(), rng=Random(1))
        self.router.on_change = self.changes.notify
        self.heard = Heard()
        self.proxy = ProxyDoor(self.router, self.clock, self.settings, self.heard)
        self.engines: list[ScriptedEngine] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.session = await self._stack.enter_async_context(
            aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=20))
        )
        self.door = self.proxy.runner()
        self.proxy_port = await self._listen(self.door)
        self._stack.push_async_callback(self.proxy.close)
        return self

    async def __aexit__(self, *error: object) -> None:
        if error[0] is None:
            await self.audit()
        await self._stack.aclose()
        for engine in self.engines:
            await engine.stop()

    async def audit(self) -> None:
        """Every slot, body and request is given back, a moment after the last client was served."""
        await eventually(lambda: self.proxy.in_flight() == 0, "requests under way")
        await eventually(lambda: self.router.in_flight() == 0, "attempts in flight")
        assert self.heard.running == 0
        assert self.proxy._bodies.budget.used == 0
        assert not self.proxy._means.live
        assert not self.router.waiting()
        assert all(endpoint.in_flight == 0 for endpoint in self.router.status().endpoints)

    async def _listen(self, runner: web.BaseRunner) -> int:
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    # Who is there

    def serve(
        self,
        *endpoints: EndpointSpec,
        timeouts: Timeouts | None = None,
        models: Iterable[ModelSpec] = (ModelSpec(MODEL, (ALIAS,), ("lora",), SERVED),),
        namespace: str = "team",
        pool: PoolSettings | None = None,
    ) -> None:
        """Have a server of these endpoints."""
        spec = ServerSpec(
            f"{namespace}/srv",
            namespace,
            tuple(models),
            timeouts=timeouts or Timeouts(),
            pool=pool or PoolSettings("WeightedLeastConnections", queue_size=0),
        )
        self.router.apply(ServerSeen(spec), self.clock())
        for endpoint in endpoints:
            self.router.apply(EndpointSeen(replace(endpoint, server=spec.key)), self.clock())

    async def engine(self, default: Behaviour = answer_json) -> ScriptedEngine:
        """Start one more engine."""
        engine = ScriptedEngine(default)
        await engine.start()
        self.engines.append(engine)
        return engine

    async def simple(
        self, *, timeouts: Timeouts | None = None, count: int = 1, capacity: int = 8
    ) -> list[ScriptedEngine]:
        """Have one server with ``count`` engines called pod-0, pod-1 ..., picked in that order when idle."""
        engines = [await self.engine() for _ in range(count)]
        self.serve(*(endpoint(f"pod-{i}", e.address, capacity) for i, e in enumerate(engines)), timeouts=timeouts)
        return engines

    # The other doors

    async def routing_port(self) -> int:
        return await self._listen(RoutingDoor(self.router, self.clock, self.settings, self.heard).runner())

    async def admin(
        self,
        reviewer: Reviewer | None = None,
        *,
        health: Health | None = None,
        cordon: Cordon | None = None,
        render: Callable[[], bytes] = lambda: b"",
    ) -> tuple[AdminDoor, int]:
        found = health or Health()
        door = AdminDoor(
            self.router,
            self.clock,
            self.settings,
            guard=Guard(reviewer, self.clock, open_reads=self.settings.open_reads),
            health=lambda: found,
            render_metrics=render,
            cordon=cordon,
            changes=self.changes,
        )
        return door, await self._listen(door.runner())

    # Clients

    def url(self, path: str = CHAT) -> str:
        return f"http://127.0.0.1:{self.proxy_port}{path}"

    async def post(
        self, body: object, path: str = CHAT, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, aiohttp.ClientResponse]:
        data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.post(URL(self.url(path), encoded=True), data=data, headers=headers) as response:
            return response.status, await response.read(), response

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.proxy_port)


def endpoint(uid: str, address: str, capacity: int = 8) -> EndpointSpec:
    return EndpointSpec(uid, "", uid, address, capacity, ready=True)


def raw_request(body: bytes, *headers: str, path: str = CHAT) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def eventually(true: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"still: {what}"
        await asyncio.sleep(0.005)
