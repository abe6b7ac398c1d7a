"""Sends requests at their times, whatever became of the earlier ones, and measures the streams that come back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

from bench.cells import Ask

HEAD_END = b"\r\n\r\n"
STREAM_END = b"\r\n0\r\n\r\n"
"""With the end of the line before: a head may end in a zero too."""
BUSY = (429, 503)
TOKEN = re.compile(rb'"content":\s*"t\d+ ')
DONE = b"data: [DONE]"
PROMPT = re.compile(rb'"prompt_tokens":\s*(\d+)')
CACHED = re.compile(rb'"cached_tokens":\s*(\d+)')


class Ended(Enum):
    """How a request ended: with the whole answer, refused because somebody was full, or neither."""

    WHOLE = "whole"
    SHED = "shed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's figures, in seconds from the moment when it was due, and tokens; 0 where there is none."""

    ended: Ended
    late: float = 0.0
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    prompt: int = 0
    cached: int = 0

    @property
    def gap(self) -> float | None:
        """Return the mean time between two tokens; None where there are no two."""
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else None


class Client(asyncio.Protocol):
    """One connection, one request at a time. ``ask`` ends with the answer, whole or not."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._read: list[bytes] = []
        self._tail = b""
        self._first = self._last = 0.0
        self._waiter: asyncio.Future[bool] | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._last = self._loop.time()
        self._read.append(data)
        if not self._first and TOKEN.search(data):
            self._first = self._last
        self._tail = (self._tail + data)[-len(STREAM_END) :]
        if self._tail == STREAM_END:
            self._end()
        elif not self._first and _status(b"".join(self._read)) not in (None, 200):
            self._end()
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self.usable = False
        self._end()

    async def ask(self, ask: Ask, due: float) -> Answer | None:
        """Send a request and return its figures; None when the connection had been closed before it was read."""
        self._read, self._tail = [], b""
        self._first = self._last = 0.0
        self._waiter = self._loop.create_future()
        late = self._loop.time() - due
        self._transport.write(ask.raw)
        await self._waiter
        raw = b"".join(self._read)
        return _answer(raw, ask, late, self._first - due, self._last - due) if raw or self.usable else None

    def close(self) -> None:
        """Leave, whatever is under way."""
        self.usable = False
        self._transport.close()

    def _end(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


def _answer(raw: bytes, ask: Ask, late: float, first: float, last: float) -> Answer:
    status = _status(raw)
    if status != 200:
        return Answer(Ended.SHED if status in BUSY else Ended.LOST, late)
    body = unchunked(raw.partition(HEAD_END)[2])
    tokens = len(TOKEN.findall(body))
    ended = Ended.WHOLE if tokens == ask.tokens and DONE in body else Ended.LOST
    return Answer(ended, late, first, last, tokens, _number(PROMPT, body), _number(CACHED, body))


def _status(raw: bytes) -> int | None:
    """Return the status of an answer; None while its first line has not come."""
    line, end, _ = raw.partition(b"\r\n")
    return int(line.split()[1]) if end else None


def unchunked(body: bytes) -> bytes:
    """Return what the chunks of a body hold, as far as they have come."""
    parts: list[bytes] = []
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end].partition(b";")[0] or b"0", 16)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def _number(pattern: re.Pattern[bytes], body: bytes) -> int:
    found = pattern.findall(body)
    return int(found[-1]) if found else 0


class Replay:
    """Requests to one port; connections are kept and used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._idle: list[Client] = []

    async def run(self, asks: Sequence[Ask], patience: float) -> list[Answer]:
        """Send everything at its time. What has not ended ``patience`` seconds after the last was due is lost."""
        begin = self._loop.time()
        tasks = [asyncio.create_task(self._one(ask, begin + ask.at)) for ask in asks]
        await asyncio.wait(tasks, timeout=asks[-1].at + patience)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._idle:
            client.close()
        return [end if isinstance(end, Answer) else Answer(Ended.LOST) for end in ends]

    async def _one(self, ask: Ask, due: float) -> Answer:
        await asyncio.sleep(due - self._loop.time())
        while client := self._kept():
            answer = await self._ask(client, ask, due)
            if answer is not None:
                return answer
        _, client = await self._loop.create_connection(Client, "127.0.0.1", self._port)
        return await self._ask(client, ask, due) or Answer(Ended.LOST)

    async def _ask(self, client: Client, ask: Ask, due: float) -> Answer | None:
        try:
            answer = await client.ask(ask, due)
        except asyncio.CancelledError:
            client.close()
            raise
        if client.usable:
            self._idle.append(client)
        return answer

    def _kept(self) -> Client | None:
        """Return a connection that can be used again."""
        while self._idle:
            client = self._idle.pop()
            if client.usable:
                return client
        return None
