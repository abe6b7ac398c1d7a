"""The gate's HTTP server: /wait for the kubelet, /healthz for the probe, /status for people."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tailrace.engines.reader import Engine, join_host_port
from tailrace.gate.decision import Ended, HelloPlan
from tailrace.gate.log import Log, stderr_log
from tailrace.gate.protocol import Answer, Fault
from tailrace.gate.routers import Routers
from tailrace.gate.run import DrainRun
from tailrace.gate.settings import GateSettings

_UNRESOLVED = Fault("the name cannot be resolved")


class Gate:
    """One pod's gate: says hello to the routers, and runs at most one drain at a time."""

    def __init__(self, settings: GateSettings, routers: Routers, engine: Engine, log: Log) -> None:
        self._settings = settings
        self._routers = routers
        self._engine = engine
        self._log = log
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._run: DrainRun | None = None
        self._task: asyncio.Task[Ended] | None = None
        self._waiting = 0
        self._hello: dict[str, bool | Fault] = {}
        self._hello_at: float | None = None

    async def wait(self) -> Ended:
        """Return once SIGTERM may come. Callers at one time share one run; after its end the next call starts anew.

        A run that nobody waits for any more ends: the kubelet has killed the container (a liveness failure), and to
        go on would drain the one that starts in its place. A kubelet that was restarted itself calls again.
        """
        if self._task is None or self._task.done():
            self._run = DrainRun(self._routers, self._engine, self._settings.limits, self._log, self._clock)
            self._task = asyncio.create_task(self._run.run())
        task = self._task
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting -= 1
            if not self._waiting and not task.done():
                self._log("drain-abandoned")
                task.cancel()
                self._task = None

    async def greet(self) -> None:
        """Say hello for ever, as HelloPlan has it."""
        plan = HelloPlan(self._settings.hello_seconds, lambda: random.uniform(-1, 1))  # noqa: S311 - spreads load
        while True:
            known = False
            try:
                known = await self._hello_everywhere()
            except Exception as error:  # the next hello may go better; the gate lives on
                self._log("hello-failed", error=repr(error))
            await asyncio.sleep(plan.delay(known=known))

    def close(self) -> None:
        """End a drain that is still running; its callers get no answer."""
        if self._task is not None:
            self._task.cancel()

    async def _hello_everywhere(self) -> bool:
        addresses = sorted(await self._routers.resolve())
        said = await asyncio.gather(*map(self._routers.hello, addresses))
        replies: dict[str, bool | Fault] = dict(zip(addresses, said, strict=True))
        replies |= {str(name): _UNRESOLVED for name in sorted(self._routers.unresolved, key=str)}
        if replies != self._hello:
            event = "hello-failed" if all(isinstance(reply, Fault) for reply in replies.values()) else "hello"
            self._log(event, **{f"router.{address}": _reply(reply) for address, reply in replies.items()})
        self._hello, known = replies, True in replies.values()
        self._hello_at = self._clock() if known else self._hello_at
        return known

    def status(self) -> dict[str, object]:
        """Return what the gate knows, for people: times are seconds before now."""
        return {
            "uid": self._settings.pod_uid,
            "engine": self._settings.family.name,
            "hello": {
                "lastSecondsAgo": self._ago(self._hello_at),
                "routers": {address: _reply(reply) for address, reply in self._hello.items()},
            },
            "drain": self._drain_status(),
        }

    def _drain_status(self) -> dict[str, object] | None:
        if self._run is None or self._task is None:
            return None
        return {
            "inProgress": not self._task.done(),
            "startedSecondsAgo": self._ago(self._run.hold.started),
            "ended": self._run.hold.ended(self._clock()) if self._task.done() else None,
            "routerInTouch": not self._run.hold.alone,
            "routers": {address: _word(word) for address, word in self._run.words.items()},
        }

    def _ago(self, moment: float | None) -> float | None:
        return None if moment is None else round(self._clock() - moment, 1)


def _reply(reply: bool | Fault) -> str:
    return reply.why if isinstance(reply, Fault) else "known" if reply else "pod unknown"


def _word(word: Answer | Fault) -> dict[str, object]:
    if isinstance(word, Fault):
        return {"fault": word.why}
    return {"state": word.state, "inFlight": word.in_flight, "safeToDelete": word.safe_to_delete}


def application(gate: Gate) -> web.Application:
    """Return the aiohttp application around a gate."""

    async def wait(_: web.Request) -> web.Response:
        return web.Response(text=f"{await gate.wait()}\n")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def status(_: web.Request) -> web.Response:
        return web.json_response(gate.status())

    app = web.Application()
    app.add_routes([web.get("/wait", wait), web.get("/healthz", healthz), web.get("/status", status)])
    return app


@asynccontextmanager
async def running(settings: GateSettings, log: Log = stderr_log) -> AsyncIterator[Gate]:
    """Serve a gate for the length of the block; OSError if its address cannot be listened on."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        routers = Routers(session, settings.routers, settings.pod_uid, settings.token_file)
        engine = Engine(session, settings.family, settings.listen_host, settings.engine_port)
        gate = Gate(settings, routers, engine, log)
        runner = web.AppRunner(application(gate), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        greeting = asyncio.create_task(gate.greet())
        try:
            await runner.setup()
            await web.TCPSite(runner, settings.listen_host, settings.port).start()
            log("listening", address=join_host_port(settings.listen_host, settings.port), pod_uid=settings.pod_uid)
            yield gate
        finally:
            greeting.cancel()
            gate.close()
            await runner.cleanup()


async def serve(settings: GateSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with running(settings):
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _leave, number.name)
        await asyncio.Event().wait()


def _leave(name: str) -> None:
    """End at once: the kubelet sends this after the regular containers have exited, nothing is left to hold.

    A regular exit would wait for a name lookup that hangs in its thread.
    """
    stderr_log("leaving", signal=name)
    os._exit(0)
