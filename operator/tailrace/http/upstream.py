"""The connections to the engines: one pool for all, and what a failure there means to an attempt."""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from tailrace.core.exchange import Failure
from tailrace.core.model import Pick
from tailrace.http.headers import Headers

KEEPALIVE_SECONDS = 30.0
READ_BUFFER_BYTES = 64 * 1024
MAX_FIELD_BYTES = 64 * 1024

LARGE_BODY_BYTES = 1024 * 1024
"""Larger bodies are written in pieces, so that one of them does not hold up every stream."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FINAL_STATUSES = range(200, 600)
_NO_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class AttemptError(Exception):
    """An attempt came to nothing, or its answer broke off."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure


class Upstream:
    """Pooled connections to every engine. POST only: aiohttp repeats idempotent requests on its own, never these."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def post(self, pick: Pick, path: str, headers: Headers, body: bytes) -> aiohttp.ClientResponse:
        """Send the request and return the head of the answer; AttemptError when there is none.

        The caller must read the answer to its end or ``close`` it.
        """
        try:
            answer = await self._pool().post(
                URL(f"http://{pick.address}{path}", encoded=True),
                data=aiohttp.BytesPayload(body) if len(body) <= LARGE_BODY_BYTES else BytesIO(body),
                headers=headers,
                skip_auto_headers=_absent(headers),
                timeout=_connect_within(pick.timeouts.connect),
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError) as error:
            raise AttemptError(Failure.CONNECT, f"{pick.address}: {words(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptError(_silence(error, reused=_reused.get()), words(error)) from error
        if fault := _fault(answer):
            answer.close()
            raise AttemptError(Failure.NO_RESPONSE, fault)
        return answer

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _pool(self) -> aiohttp.ClientSession:
        """Return the session; made on the running loop at the first request."""
        if self._session is None:
            self._session = _session()
        return self._session


def words(error: Exception) -> str:
    """Return what went wrong for the log: never the error's own text, which may quote the client's credentials."""
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{name}: {error.status}"
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.strerror else name


def _fault(answer: aiohttp.ClientResponse) -> str:
    """Return why the head cannot be sent on, empty when it can: aiohttp reads more than it sends, and HTTP allows."""
    if answer.status not in _FINAL_STATUSES:
        return f"{answer.status} is no status that an answer ends with"
    if _CONTROL.search(answer.reason or "") or any(map(_CONTROL.search, answer.headers.values())):
        return "control characters in the head of the answer"
    return ""


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Pool(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        raise_for_status=False,
    )


def _absent(headers: Headers) -> list[str] | None:
    """Return what aiohttp must not add to these headers; None, which is cheaper, when they have it all."""
    return [name for name in _NO_AUTO_HEADERS if name not in headers] or None


_reused: ContextVar[bool] = ContextVar("reused", default=False)
"""Whether the connection of this task's last request had carried one before."""


class _Pool(aiohttp.TCPConnector):
    """A pool that says in ``_reused`` which connections are not new. A trace would say it at thrice the cost."""

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._used: WeakSet[object] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's name, given by keyword
    ) -> Connection:
        _reused.set(False)
        connection = await super().connect(req, traces, timeout)
        while _has_more(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        reused = protocol in self._used
        if not reused:
            self._used.add(protocol)
        _reused.set(reused)
        return connection


def _has_more(connection: Connection) -> bool:
    """Whether something came on an idle connection: it would be taken for the answer to the next client's request."""
    return connection.protocol is not None and connection.protocol.should_close


@lru_cache(maxsize=1024)
def _connect_within(seconds: float) -> aiohttp.ClientTimeout:
    """Return the limit for a connection, the look-up of its name and each of its addresses included."""
    return aiohttp.ClientTimeout(total=None, connect=seconds)


_CLOSED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError, BrokenPipeError)


def _silence(error: Exception, *, reused: bool) -> Failure:
    """Say what it means that no head of an answer came: nothing at all on a pooled connection is a stale one."""
    partial = isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
    if reused and isinstance(error, _CLOSED) and not partial and not isinstance(error, asyncio.TimeoutError):
        return Failure.STALE
    return Failure.NO_RESPONSE
