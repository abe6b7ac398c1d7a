"""A proxy between one operator and the API server that fails on demand.

It ends TLS with the API server's own certificate, reads each request as a `Call`, remembers it, and passes it on,
unless an injected fault says what happens instead. Everything public may be called from any thread.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import orjson
from aiohttp import web
from tests.cluster.ports import free_ports
from tests.faults.background import Background
from tests.faults.calls import Call, Match, parse

HOP_BY_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "accept-encoding"})
REMEMBERED_LISTS = 50
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=5)


class GoneAwayError(Exception):
    """The connection to the operator is to end without another byte."""


@dataclass
class Answer:
    """A whole answer of the API server."""

    status: int
    body: bytes
    type: str = "application/json"
    retry_after: str = ""
    at: float = field(default_factory=time.time)

    def response(self) -> web.Response:
        """Return it as a response to the operator."""
        headers = {"Content-Type": self.type} | ({"Retry-After": self.retry_after} if self.retry_after else {})
        return web.Response(status=self.status, body=self.body, headers=headers)


class Exchange:
    """One request under way: what actions have to work with."""

    def __init__(self, proxy: FaultProxy, request: web.BaseRequest, call: Call, body: bytes) -> None:
        self.call = call
        self._proxy = proxy
        self._request = request
        self._body = body

    async def ask(self) -> Answer:
        """Pass the request on and return the whole answer; what it wrote is committed then."""
        return await self._proxy.ask(self._request, self.call, self._body)

    async def pass_on(self) -> web.StreamResponse:
        """Do what happens without a fault."""
        return await (self.stream() if self.call.verb == "watch" else self._whole())

    async def _whole(self) -> web.StreamResponse:
        return (await self.ask()).response()

    async def stream(
        self, *, events: int | None = None, pause: float = 0.0, last_words: bytes = b""
    ) -> web.StreamResponse:
        """Pass a watch on, each event after `pause` seconds; after `events` of them say `last_words` and cut it."""
        return await self._proxy.stream(self, self._request, events=events, pause=pause, last_words=last_words)

    async def halve(self) -> web.StreamResponse:
        """Pass on one half of the answer and cut the connection."""
        answer = await self.ask()
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.type})
        response.content_length = len(answer.body)
        await response.prepare(self._request)
        await response.write(answer.body[: len(answer.body) // 2])
        raise GoneAwayError

    def older_list(self, before: float) -> Answer | None:
        """Return the newest answer to this very list that is older than `before` (wall time)."""
        return self._proxy.older_list(self.call, before)

    def abort(self) -> None:
        """Cut the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()


Action = Callable[[Exchange], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class Fault:
    """An action for every call that matches, `left` times at most (None: no limit). `hits` counts."""

    match: Match
    action: Action
    left: int | None = None
    hits: int = 0

    def takes(self, call: Call) -> bool:
        """Whether this call is to fail; counts it then."""
        if self.left == 0 or not self.match(call):
            return False
        self.hits += 1
        self.left = None if self.left is None else self.left - 1
        return True


class FaultProxy:
    """A context manager. `calls` holds every request in order; `on_commit` hears of each write that was carried out.

    `on_commit` runs before the operator gets the answer: ending the operator there is a crash after that write.
    """

    def __init__(self, background: Background, upstream: str, *, ca: Path, certificate: Path, key: Path) -> None:
        self._background = background
        self._upstream = upstream
        self._trust = ssl.create_default_context(cafile=str(ca))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        (self._port,) = free_ports(1)
        self._faults: list[Fault] = []
        self._exchanges: set[Exchange] = set()
        self._lists: dict[str, deque[Answer]] = {}
        self._silent = False
        self.calls: list[Call] = []
        self.on_commit: Callable[[Call], None] = lambda _: None

    @property
    def url(self) -> str:
        """Where the operator finds it."""
        return f"https://127.0.0.1:{self._port}"

    # What tests do

    def inject(self, match: Match, action: Action, times: int | None = None) -> Fault:
        """Let calls fail from now on, until `remove` or for so many times. Of several faults the oldest acts."""
        fault = Fault(match, action, times)
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Let these calls through again."""
        self._faults.remove(fault)

    @contextmanager
    def failing(self, match: Match, action: Action, times: int | None = None) -> Iterator[Fault]:
        """Inject a fault for the time of the block."""
        fault = self.inject(match, action, times)
        try:
            yield fault
        finally:
            self.remove(fault)

    def cut(self, match: Match) -> int:
        """Cut every matching call that is under way; return how many there were."""
        return self._background.call(self._cut(match))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections, and cut those that are open, for the time of the block."""
        self._background.call(self._close())
        try:
            yield
        finally:
            self._background.call(self._open())

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept everything and answer nothing, for the time of the block; what was asked then is never answered.

        Connections of that time stay as they are afterwards, like those that a firewall has forgotten.
        """
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def count(self) -> Counter[tuple[str, str]]:
        """Return how many calls there were by verb and resource."""
        return Counter((call.verb, call.resource) for call in self.calls)

    def writes(self) -> list[Call]:
        """Return the writes that the API server has carried out, in order."""
        return [call for call in self.calls if call.committed]

    # What actions do

    async def ask(self, request: web.BaseRequest, call: Call, body: bytes) -> Answer:
        """Pass a request on and return the whole answer."""
        async with self._session.request(
            request.method, self._target(request), headers=_passed_on(request), data=body or None
        ) as upstream:
            data = await upstream.read()
            answer = Answer(upstream.status, data, upstream.content_type, upstream.headers.get("Retry-After", ""))
        self._note(call, answer)
        return answer

    def _note(self, call: Call, answer: Answer) -> None:
        call.status, call.answered_at = answer.status, time.time()
        if call.verb == "list" and answer.status == 200:
            self._lists.setdefault(_key(call), deque(maxlen=REMEMBERED_LISTS)).append(answer)
        if call.is_write:
            with suppress(orjson.JSONDecodeError):
                call.answer = orjson.loads(answer.body)
        if call.committed:
            self.on_commit(call)

    def older_list(self, call: Call, before: float) -> Answer | None:
        """Return the newest answer to this list that is older than `before`."""
        return next((one for one in reversed(self._lists.get(_key(call), ())) if one.at < before), None)

    async def stream(
        self, exchange: Exchange, request: web.BaseRequest, *, events: int | None, pause: float, last_words: bytes
    ) -> web.StreamResponse:
        """Pass a watch on, line by line."""
        async with self._session.get(self._target(request), headers=_passed_on(request), timeout=NO_LIMIT) as upstream:
            exchange.call.status = upstream.status
            response = web.StreamResponse(status=upstream.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            sent = 0
            async for line in _lines(upstream):
                if events is not None and sent >= events:
                    await response.write(last_words)
                    raise GoneAwayError
                await asyncio.sleep(pause)
                if self._silent:
                    await _forever()
                await response.write(line)
                sent += 1
        return response

    # The server

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        call = parse(
            request.method, request.path, request.query, raw_query=request.query_string, body=body, at=time.time()
        )
        self.calls.append(call)
        exchange = Exchange(self, request, call, body)
        self._exchanges.add(exchange)
        try:
            return await self._act(exchange)
        except (GoneAwayError, aiohttp.ClientError, ConnectionError):
            exchange.abort()
            return web.Response(status=502)
        finally:
            self._exchanges.discard(exchange)

    async def _act(self, exchange: Exchange) -> web.StreamResponse:
        if self._silent:
            await _forever()
        fault = next((fault for fault in list(self._faults) if fault.takes(exchange.call)), None)
        return await (fault.action(exchange) if fault else exchange.pass_on())

    async def _cut(self, match: Match) -> int:
        found = [exchange for exchange in self._exchanges if match(exchange.call)]
        for exchange in found:
            exchange.abort()
        return len(found)

    async def _open(self) -> None:
        server = web.Server(self._handle, handler_cancellation=True)
        self._server = server
        self._listener = await asyncio.get_running_loop().create_server(
            server, "127.0.0.1", self._port, ssl=self._tls, backlog=256
        )

    async def _close(self) -> None:
        self._listener.close()
        for exchange in list(self._exchanges):
            exchange.abort()
        await self._server.shutdown(0.1)
        await self._listener.wait_closed()

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=NO_LIMIT, auto_decompress=False, skip_auto_headers=("Accept-Encoding",)
        )
        await self._open()

    async def _stop(self) -> None:
        await self._close()
        await self._session.close()

    def _target(self, request: web.BaseRequest) -> str:
        return self._upstream + request.raw_path

    def __enter__(self) -> Self:
        self._background.call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.call(self._stop())


def _passed_on(request: web.BaseRequest) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}


def _key(call: Call) -> str:
    return f"{call.path}?{call.query}"


async def _lines(upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in upstream.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


async def _forever() -> None:
    await asyncio.Event().wait()
