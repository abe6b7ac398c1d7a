"""The HTTP server under every door: its limits, its options, and what it does with requests that are no HTTP."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from fcntl import ioctl
from termios import TIOCOUTQ

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

CLOSING_SECONDS = 1.0
"""How long a closing server waits for handlers: those who close a door have waited for its requests before."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


def runner(handler: Handler) -> web.ServerRunner:
    """Return what runs a door: ``await setup()``, start sites on it, ``await cleanup()``. Call it on the loop."""
    return web.ServerRunner(_server(handler), shutdown_timeout=CLOSING_SECONDS)


def unread(of: web.ServerRunner) -> int:
    """Return how many bytes its clients have yet to take, where that can be told: what is lost if the process ends."""
    connections = of.server.connections if of.server is not None else ()
    return sum(_unread(each.transport) for each in connections if each.transport is not None)


def hang_up(of: web.ServerRunner) -> None:
    """Close the connections that wait for a request. aiohttp's own way drops what is left of the others' bodies."""
    for connection in list(of.server.connections) if of.server is not None else ():
        if isinstance(connection, _Connection):
            connection.hang_up()


def _unread(transport: asyncio.Transport) -> int:
    return transport.get_write_buffer_size() + _unacknowledged(transport.get_extra_info("socket"))


def _unacknowledged(sock: TransportSocket | None) -> int:
    """Return what the kernel holds of a connection's bytes; a pod takes its network along when it ends."""
    try:
        return 0 if sock is None else int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # not every system can tell; a socket that is closed cannot either
        return 0


def _server(handler: Handler) -> web.Server:
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

    __slots__ = ()

    def hang_up(self) -> None:
        """Close the connection if it waits for a request, and its client has read the last answer."""
        if self._waiter is not None and self.transport is not None and not _unread(self.transport):
            self.transport.close()

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
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
