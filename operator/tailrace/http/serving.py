"""The HTTP server under every door: its limits, its options, and what it does with requests that are no HTTP."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from tailrace.http.errors import bad_request, internal

KEEPALIVE_SECONDS = 75.0
"""How long a connection may be idle, or take to send the head of a request: a little longer than usual clients'."""

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read and thrown away, so that its client gets to read the answer."""

MAX_LINE_BYTES = 8190
MAX_FIELD_BYTES = 32 * 1024
"""One header's size: service-account tokens and tracing headers are a few KiB."""
MAX_HEADERS = 128
READ_BUFFER_BYTES = 64 * 1024

IDLE_SECONDS = 1.0
"""How long a connection must have been idle before a door that is about to close closes it."""

UNREAD_POLL_SECONDS = 0.02

CLOSING_SECONDS = 1.0
"""How long a closing server waits for handlers: those who close a door have waited for its requests before."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Runner(web.ServerRunner):
    """Runs a door: ``await setup()``, start sites on it, ``await cleanup()``; and lets its clients go before that.

    Who closes a connection that a client was told to keep may close it as a request is on its way. So a door that is to
    be closed says so in every answer that has not begun (``leave``), takes one more request on each connection whose
    last answer had begun before that, and closes by itself only what has been idle for a while (``open_connections``).
    """

    def leave(self) -> None:
        """Have clients connect anew, elsewhere: from now on every answer says that its connection ends with it."""
        if isinstance(self.server, _Server):
            self.server.leaving = True

    async def stop_listening(self) -> None:
        """Take no new connections."""
        for site in list(self.sites):
            await site.stop()

    def open_connections(self) -> int:
        """Close what was idle for ``IDLE_SECONDS`` and whose client has read everything; return how many are left."""
        connections = list(self.server.connections) if self.server is not None else []
        return sum(not (isinstance(each, _Connection) and each.hang_up()) for each in connections)


def runner(handler: Handler) -> Runner:
    """Return what runs a door. Call it on the loop."""
    return Runner(_server(handler), shutdown_timeout=CLOSING_SECONDS)


def leaving(request: web.BaseRequest) -> bool:
    """Whether the door that the request came through is about to close, so that its connection should end with it."""
    return isinstance(request.protocol, _Connection) and request.protocol.leaving


def _unread(transport: asyncio.Transport) -> int:
    # What the kernel holds counts, too: a pod takes its network along when it ends.
    return transport.get_write_buffer_size() + _queued(transport.get_extra_info("socket"), TIOCOUTQ)


def _queued(sock: TransportSocket | None, which: int) -> int:
    """Return how many bytes the kernel holds that were sent and not acknowledged, or came and were not read."""
    try:
        return 0 if sock is None else int.from_bytes(ioctl(sock.fileno(), which, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # not every system can tell; a socket that is closed cannot either
        return 0


def _server(handler: Handler) -> _Server:
    """Return the server; a client that leaves cancels its handler."""
    return _Server(
        handler,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_SECONDS,
        lingering_time=LINGER_SECONDS,
        access_log=None,
        auto_decompress=False,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        max_headers=MAX_HEADERS,
        read_bufsize=READ_BUFFER_BYTES,
    )


class _Connection(RequestHandler):
    """A client's connection whose protocol errors are answered in JSON and logged in one line."""

    __slots__ = ("_heard",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, on which nothing has come yet."""
        self._heard = False
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        self._heard = True
        super().data_received(data)

    @property
    def leaving(self) -> bool:
        """Whether the connection ends with the next answer."""
        return isinstance(self._manager, _Server) and self._manager.leaving

    def hang_up(self) -> bool:
        """Close the connection if it has been idle for long, and its client has read the last answer; tell if so.

        A request that has come to this machine, in part or whole, is taken. One on its way may still be lost.
        """
        waiting = self._waiter is not None and not self._waiter.done() and not self._messages
        if self.transport is None or not waiting or self._is_spoken_to() or _unread(self.transport):
            return False
        idle = self._loop.time() - (self._next_keepalive_close_time - KEEPALIVE_SECONDS)
        if idle < IDLE_SECONDS:
            return False
        self.transport.close()
        return True

    def _is_spoken_to(self) -> bool:
        """Whether anything has come since the last answer, read or not."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        return self._heard or bool(_queued(sock, FIONREAD))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer, or the rest of it. A connection that ends with it ends when the client has got all."""
        self._heard = False
        if self.leaving and not resp.prepared:
            resp.force_close()
        done = await super().finish_response(request, resp, start_time)
        while self.leaving and self.transport is not None and _unread(self.transport):  # noqa: ASYNC110 - none tells
            await asyncio.sleep(UNREAD_POLL_SECONDS)
        return done

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what the client sent
    ) -> web.StreamResponse:
        """Return the answer to a request that could not be handled; ConnectionError when one has begun."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, it cannot become an error")
        if status < 500 and isinstance(exc, HttpProcessingError):
            log.info("not HTTP: %s from %s", type(exc).__name__, self.peername)
            answer = bad_request("http_malformed", "the request is not valid HTTP, or its head is too large; mend it")
        else:
            log.error("a handler failed", exc_info=exc)
            answer = internal()
        answer.close = True
        return answer.response()


class _Server(web.Server):
    leaving = False

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
