"""The process around a model server: listening, signals, exit."""

import asyncio
import signal
from contextlib import suppress

import typer
from aiohttp import web

from tailrace.sim.options import OnSigterm, Options
from tailrace.sim.request_log import RequestLog
from tailrace.sim.server import ModelServer
from tailrace.sim.service import SIGTERM

FOREVER_SECONDS = 10 * 365 * 86400.0
SOON_SECONDS = 1.0
"""After the cut of an abort nothing is in flight; this only bounds the closing of connections."""
GRACE_SECONDS = {OnSigterm.ABORT: SOON_SECONDS, OnSigterm.FINISH: FOREVER_SECONDS}
BACKLOG = 1024


class CannotStartError(Exception):
    """The address or the request log cannot be had."""


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT; exit with status 1 and a sentence when the server cannot start."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(options))
    except CannotStartError as error:
        typer.echo(f"tailrace model-server: {error}", err=True)
        raise SystemExit(1) from None


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT, and end the requests in flight as `options.on_sigterm` says.

    A second signal cuts what the first one left to finish. Raises CannotStartError.
    """
    server = ModelServer(options, _open_log(options))
    runner = await _listen(server)
    stop = asyncio.Event()
    _on_signals(server, stop)
    _announce(server, runner.addresses[0][1])
    await stop.wait()
    await runner.cleanup()
    server.log.write("exit", reason="sigterm", code=0)
    server.log.close()


def _open_log(options: Options) -> RequestLog:
    try:
        return RequestLog(options.request_log)
    except OSError as error:
        raise CannotStartError(f"cannot write to --request-log: {error}") from error


async def _listen(server: ModelServer) -> web.AppRunner:
    options = server.options
    grace = GRACE_SECONDS[options.on_sigterm]
    runner = web.AppRunner(server.app, access_log=None, handler_cancellation=True, shutdown_timeout=grace)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port, backlog=BACKLOG).start()
    except OSError as error:
        await runner.cleanup()
        where = f"--host {options.host} --port {options.port}"
        raise CannotStartError(f"cannot listen on {where}: {error}; choose another or free it") from error
    return runner


def _on_signals(server: ModelServer, stop: asyncio.Event) -> None:
    def stopped() -> None:
        server.log.write("sigterm", in_flight=server.service.in_flight, mode=server.options.on_sigterm.value)
        cut = stop.is_set() or server.options.on_sigterm is OnSigterm.ABORT
        server.stopping = True
        server.faults.release()
        stop.set()
        if cut:
            server.service.cut_all(SIGTERM)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)


def _announce(server: ModelServer, port: int) -> None:
    options = server.options
    server.log.write("startup", host=options.host, port=port, models=options.models, adapters=options.adapters)
    asyncio.get_running_loop().call_later(options.startup_seconds, server.log.write, "ready")
    typer.echo(f"tailrace model-server: listening on http://{options.host}:{port}")


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - absent on some platforms

        return uvloop.Loop
    return None
