"""A load generator that costs little: plain sockets, one request at a time on each connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"
EVENT_END = b"\n\n"
STREAM_END = b"0\r\n\r\n"
READ_BYTES = 65536


class BadAnswerError(Exception):
    """Something else came than what is measured; the message holds its beginning."""


def post(path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request; ``_`` in the names of headers stands for ``-``."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + HEAD_END + body


class Connection:
    """One connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to a port of the loopback address."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Send a request whose answer has a length; return status and body."""
        self._writer.write(request)
        head = (await self._reader.readuntil(HEAD_END)).lower()
        return int(head[9:12]), await self._reader.readexactly(_length(head))

    async def ask(self, request: bytes) -> bytes:
        """Send a request whose answer has a length; return the answer's body. BadAnswerError unless it is a 200."""
        status, body = await self.call(request)
        if status != 200:
            raise BadAnswerError(f"{status} {body[:300]!r}")
        return body

    async def stream(self, request: bytes, on_events: Callable[[int], None]) -> float:
        """Send a request that is answered in chunks; return the seconds until the first of them came."""
        sent = time.perf_counter()
        self._writer.write(request)
        await self._head()
        first, tail = 0.0, b""
        while not tail.endswith(STREAM_END):
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise BadAnswerError("a stream broke off")
            if events := data.count(EVENT_END):
                first = first or time.perf_counter() - sent
                on_events(events)
            tail = (tail + data)[-len(STREAM_END) :]
        return first

    async def begin(self, request: bytes) -> None:
        """Send a request and read until its first event."""
        self._writer.write(request)
        await self._reader.readuntil(EVENT_END)

    def close(self) -> None:
        """Leave, whatever is under way."""
        self._writer.close()

    async def _head(self) -> None:
        head = await self._reader.readuntil(HEAD_END)
        if b" 200 " not in head[:16]:
            raise BadAnswerError(head[:300].decode(errors="replace"))


def _length(head: bytes) -> int:
    return int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])


async def ask_all(port: int, requests: Iterator[bytes], connections: int) -> list[bytes]:
    """Send requests over so many connections, each as soon as the last was answered; return the bodies."""
    bodies: list[bytes] = []

    async def client() -> None:
        connection = await Connection.open(port)
        bodies.extend([await connection.ask(request) for request in requests])
        connection.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return bodies


@dataclass
class Streams:
    """Clients that stream without a pause. ``events`` counts chunks; ``first`` are the seconds until the first."""

    port: int
    request: bytes
    clients: int
    events: int = 0
    first: list[float] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, over: float) -> None:
        """Start the clients, spread over so many seconds."""
        for _ in range(self.clients):
            self._tasks.append(asyncio.create_task(self._client()))
            await self.go_on(over / self.clients)

    async def go_on(self, seconds: float) -> None:
        """Let them stream for so long; what one of them meets is raised."""
        failed, _ = await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in failed:
            task.result()

    async def stop(self) -> None:
        """End the clients."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self) -> None:
        connection = await Connection.open(self.port)
        try:
            while True:
                self.first.append(await connection.stream(self.request, self._count))
        finally:
            connection.close()

    def _count(self, events: int) -> None:
        self.events += events
