"""The HTTP server under every door: its limits, its options, and what it does with requests that are no HTTP."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

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


def runner(handler: Handler) -> web.BaseRunner:
    """Return what runs a door: ``await setup()``, start sites on it, ``await cleanup()``. Call it on the loop."""
    return web.ServerRunner(_server(handler), shutdown_timeout=CLOSING_SECONDS)


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
