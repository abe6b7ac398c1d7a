"""Far sides of the gate on loopback: routers and an engine that do as they are told."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from aiohttp import web

from tailrace.engines.families import family
from tailrace.gate.decision import Limits
from tailrace.gate.server import Gate, running
from tailrace.gate.settings import GateSettings, RouterName

UID = "0b7f8c1e-pod"
QUICK = Limits(timeout=30, floor=0.4, idle_gap=0.05, spacing=0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@dataclass
class FakeRouter:
    """A router's admin port. Change its fields to change what it says; `calls` is what it was asked."""

    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    status: int = 200
    known: bool = True
    state: str = "draining"
    in_flight: int = 1
    safe: bool = False
    calls: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    bodies: list[object] = field(default_factory=list)
    runner: web.AppRunner | None = None

    @property
    def name(self) -> RouterName:
        return RouterName(self.host, self.port)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/endpoints/{uid}/gate", self._hello)
        app.router.add_post("/endpoints/{uid}/drain", self._drain)
        app.router.add_get("/wait-for-drain", self._wait)
        app.router.add_get("/elsewhere/{uid}", self._elsewhere)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.host, self.port).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    def count(self, call: str) -> int:
        return self.calls.count(call)

    async def asked(self, call: str, times: int = 1) -> None:
        """Return once `call` has come `times` times."""
        await until(lambda: self.count(call) >= times)

    def _note(self, call: str, request: web.Request) -> None:
        self.calls.append(call)
        self.tokens.append(request.headers.get("Authorization"))

    def _reply(self, uid: str) -> web.Response:
        document = {"uid": uid, "state": self.state, "inFlight": self.in_flight, "safe_to_delete": self.safe}
        return web.json_response(document, status=self.status, headers={"Location": f"/elsewhere/{uid}"})

    async def _elsewhere(self, request: web.Request) -> web.Response:
        """Answer safe, to whoever follows a redirect."""
        return web.json_response({"uid": request.match_info["uid"], "safe_to_delete": True})

    async def _hello(self, request: web.Request) -> web.Response:
        self._note("hello", request)
        self.bodies.append(await request.json())
        return web.json_response({"known": self.known}, status=self.status)

    async def _drain(self, request: web.Request) -> web.Response:
        self._note("drain", request)
        self.bodies.append(await request.json())
        return self._reply(request.match_info["uid"])

    async def _wait(self, request: web.Request) -> web.Response:
        self._note("wait", request)
        for _ in range(20):
            if self.safe or self.status != 200:
                break
            await asyncio.sleep(0.005)
        return self._reply(request.query["pod"])


@dataclass
class FakeEngine:
    """An engine's metrics page."""

    port: int = field(default_factory=free_port)
    running: int = 0
    waiting: int = 0
    reads: int = 0
    status: int = 200

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    async def _metrics(self, _: web.Request) -> web.Response:
        self.reads += 1
        text = f"vllm:num_requests_running {self.running}\nvllm:num_requests_waiting {self.waiting}\n"
        return web.Response(text=text, status=self.status)


class Bench:
    """Gates, routers and engines of one test; all are stopped at its end."""

    def __init__(self, stack: AsyncExitStack, session: aiohttp.ClientSession, folder: Path) -> None:
        self._stack = stack
        self._session = session
        self.token_file = folder / "token"
        self.token_file.write_text("first\n")
        self.settings = GateSettings(
            pod_uid=UID,
            routers=(RouterName("127.0.0.1", 1),),
            listen_host="127.0.0.1",
            port=free_port(),
            token_file=self.token_file,
            family=family("vllm"),
            engine_port=1,
            limits=QUICK,
        )
        self.steps: list[tuple[str, dict[str, object]]] = []

    async def router(self, host: str = "127.0.0.1", *, port: int | None = None, up: bool = True) -> FakeRouter:
        router = FakeRouter(host=host, port=port or free_port())
        self._stack.push_async_callback(router.stop)
        if up:
            await router.start()
        return router

    async def engine(self, running: int = 0, waiting: int = 0) -> FakeEngine:
        engine = FakeEngine(running=running, waiting=waiting)
        runner = await engine.start()
        self._stack.push_async_callback(runner.cleanup)
        return engine

    async def gate(self, *routers: FakeRouter, **changes: object) -> Gate:
        names = {"routers": tuple(router.name for router in routers)} if routers else {}
        self.settings = replace(self.settings, **names, **changes)  # type: ignore[arg-type]
        return await self._stack.enter_async_context(running(self.settings, self._log))

    def hook(self) -> "asyncio.Task[str]":
        """Call /wait as the kubelet does."""
        return asyncio.create_task(self.get("/wait"))

    async def get(self, path: str) -> str:
        async with self._session.get(f"http://127.0.0.1:{self.settings.port}{path}") as response:
            assert response.status == 200
            return (await response.text()).strip()

    async def status(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(await self.get("/status"))
        return document

    def events(self) -> list[str]:
        return [event for event, _ in self.steps]

    def _log(self, event: str, /, **fields: object) -> None:
        self.steps.append((event, fields))


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fail after five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the far side has no event to wait on
            await asyncio.sleep(0.005)


async def holds(hook: Awaitable[object], seconds: float = 0.3) -> bool:
    """Tell whether the hook is still unanswered after `seconds`."""
    done, _ = await asyncio.wait([asyncio.ensure_future(hook)], timeout=seconds)
    return not done
