"""What any long-running part of a replica needs: signals, jobs beside the work, ports to listen on."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

log = logging.getLogger(__name__)

BACKLOG = 1024


class CannotListenError(Exception):
    """An address is taken, or none of this machine's; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A port to listen on. ``name`` is for people; ``setting`` names the flag and the variable that move it."""

    name: str
    setting: str
    runner: web.BaseRunner
    port: int


async def listen(stack: AsyncExitStack, host: str, listener: Listener) -> str:
    """Listen until the stack is closed; return ``host:port`` as it came out. CannotListenError when it can't be."""
    runner = listener.runner
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, listener.port, backlog=BACKLOG).start()
    except OSError as error:
        raise CannotListenError(_what_to_do(host, listener, error)) from error
    return f"{host}:{runner.addresses[0][1]}"


def _what_to_do(host: str, listener: Listener, error: OSError) -> str:
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    variable, flag = f"TAILRACE_{listener.setting.upper()}", f"--{listener.setting.replace('_', '-')}"
    return (
        f"cannot listen on {host}:{listener.port} ({listener.name}): {why}; choose another port with {variable} "
        f"(`tailrace serve`: {flag}), another address with TAILRACE_HOST (--host), or stop who holds it"
    )


class Stop:
    """Reasons to stop, one after the other: SIGTERM, SIGINT, a failed job. Made on the running loop."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[None] = asyncio.Queue()
        self.failed = False
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._came.put_nowait, None)

    async def next(self) -> None:
        """Wait for the next reason."""
        await self._came.get()

    def fail(self, error: BaseException) -> None:
        """Stop because of a mistake of the program."""
        log.critical("a part of the replica ended by a mistake of the program; stopping", exc_info=error)
        self.failed = True
        self._came.put_nowait(None)


def own_address(host: str) -> str:
    """Return an address of what listens on ``host``, as other machines reach it; of all addresses one of this name's.

    Loopback when this machine does not know itself by name.
    """
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not listened on
        return host
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    try:
        return str(socket.getaddrinfo(socket.gethostname(), None, family, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return "127.0.0.1"


@asynccontextmanager
async def running(
    jobs: Iterable[Coroutine[None, None, None]], failed: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Run the jobs beside the block and cancel them when it ends, the last one first; say which failed."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(lambda task: _report(task, failed))
    try:
        yield
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None], failed: Callable[[BaseException], None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        failed(error)
