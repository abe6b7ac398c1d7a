"""A scripted engine on a raw socket: it does to each request what the test says, down to the packet."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

JSON_ANSWER = b'{"id": "1",  "choices":[ ]}'  # two blanks: re-serialising would show


@dataclass
class Received:
    """One request as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass
class Turn:
    """One request's turn: what a behaviour may do."""

    received: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def last_chunk(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def head(self, *lines: str, status: str = "200 OK") -> None:
        await self.send(("\r\n".join([f"HTTP/1.1 {status}", *lines]) + "\r\n\r\n").encode())

    async def stream_head(self, *lines: str) -> None:
        await self.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked", *lines)

    async def peer_left(self) -> None:
        """Wait until the proxy has closed this connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Behaviour = Callable[[Turn], Awaitable[None]]


async def answer_json(turn: Turn) -> None:
    await turn.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(JSON_ANSWER), JSON_ANSWER)
    )


def stream(*events: bytes, pause: float = 0.0) -> Behaviour:
    async def behave(turn: Turn) -> None:
        await turn.stream_head()
        for event in events:
            await turn.chunk(event)
            await asyncio.sleep(pause)
        await turn.last_chunk()

    return behave


async def hang_up(turn: Turn) -> None:
    turn.close()


async def reset(turn: Turn) -> None:
    turn.reset()


async def stay_silent(turn: Turn) -> None:
    await turn.peer_left()
    turn.close()


@dataclass
class ScriptedEngine:
    """Listens on loopback. ``script`` holds a behaviour for each request to come; then ``default`` answers."""

    default: Behaviour = answer_json
    script: deque[Behaviour] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    address: str = ""
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (received := await _read(reader)) is not None:
                self.received.append(received)
                behave = self.script.popleft() if self.script else self.default
                await behave(Turn(received, reader, writer))
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.left.set()
            writer.close()
            self._tasks.discard(task)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    pairs = [line.split(": ", 1) for line in head[1:] if line]
    headers = [(name, value) for name, value in pairs]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Received(head[0], headers, await reader.readexactly(length))
