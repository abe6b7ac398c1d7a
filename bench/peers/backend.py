"""An engine that costs next to nothing: `python -m bench.peers.backend PORT...`, for measuring what stands before it.

A body with ``"stream": true`` is answered by ``x-chunks`` events, ``x-pace`` seconds apart, the first at once;
anything else by a small JSON document. Other headers are ignored.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

STREAM = b'"stream": true'
HEAD_END = b"\r\n\r\n"
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"token "}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
END = b"0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DOCUMENT = b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"content":"hello"}}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(DOCUMENT),
    DOCUMENT,
)


class Engine(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._read = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, rest = self._read.partition(HEAD_END)
        length = int(_header(head, b"content-length", b"0"))
        if end and len(rest) >= length:
            self._read = rest[length:]
            self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        if STREAM not in body:
            self._transport.write(ANSWER)
            return
        self._transport.write(STREAM_HEAD + CHUNK)
        left = int(_header(head, b"x-chunks", b"1")) - 1
        self._later(left, float(_header(head, b"x-pace", b"0")), self._loop.time())

    def _later(self, left: int, pace: float, last: float) -> None:
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(END)
            return
        self._loop.call_at(last + pace, self._next, left, pace, last + pace)

    def _next(self, left: int, pace: float, now: float) -> None:
        self._transport.write(CHUNK)
        self._later(left - 1, pace, now)


def _header(head: bytes, name: bytes, otherwise: bytes) -> bytes:
    _, found, rest = head.lower().partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else otherwise


async def main(ports: list[int]) -> None:
    """Serve until ended."""
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Engine, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main([int(text) for text in sys.argv[1:]]))
