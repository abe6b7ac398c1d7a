"""A kept-open HTTP connection that can do one thing: GET a page of an engine, over and over.

It costs a third of what a whole HTTP client does, and a router with hundreds of engines pays it hundreds of times a
second (`python -m bench scrape`). No redirects, no compression, no TLS, one request at a time.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

MAX_BYTES = 4 * 1024 * 1024
"""More than that is no page of an engine."""
MAX_HEAD_BYTES = 64 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n")


class Page(NamedTuple):
    """An answer: its status and its body."""

    status: int
    body: bytes


class Connection:
    """A connection to one address, made at the first GET, and anew when it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        name = f"[{host}]" if ":" in host else host
        self._head = f" HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: tailrace\r\nAccept: */*\r\n\r\n".encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> Page:
        """Return the page; OSError or ValueError when there is none, or none that can be read.

        It waits as long as the engine does: bound it by a timeout, which closes the connection.
        """
        try:
            return await self._get(path)
        except asyncio.LimitOverrunError as error:
            self.close()
            raise ValueError(f"its head, or a line of its framing, is longer than {MAX_HEAD_BYTES} bytes") from error
        except BaseException:
            self.close()
            raise

    async def _get(self, path: str) -> Page:
        if self._streams is not None:
            try:
                return await self._exchange(path, *self._streams)
            except (EOFError, ConnectionError):
                self.close()  # an engine may close an idle connection at any time: that says nothing of the engine
        self._streams = await asyncio.open_connection(self._host, self._port, limit=MAX_HEAD_BYTES)
        try:
            return await self._exchange(path, *self._streams)
        except EOFError as error:
            raise ConnectionResetError("the engine closed the connection") from error

    async def _exchange(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Page:
        writer.write(b"GET " + path.encode() + self._head)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = _STATUS.match(head.upper())
        if status is None:
            raise ValueError("it is no answer in HTTP")
        body, ended = await _body(head, reader)
        if ended or _CLOSE.search(head):
            self.close()
        return Page(int(status[1]), body)

    def close(self) -> None:
        """Let go of the connection; the next GET makes a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _body(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Return the body, and whether the connection ended with it."""
    if _CHUNKED.search(head):
        return await _chunks(reader), False
    length = _LENGTH.search(head)
    if length is None:
        return await _rest(reader), True
    return await reader.readexactly(_allowed(int(length[1]))), False


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := _chunk_size(await reader.readuntil(b"\n")):
        _allowed(len(body) + size)
        body += (await reader.readexactly(size + 2))[:size]
    while (await reader.readuntil(b"\n")).strip():
        pass  # trailers
    return bytes(body)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise ValueError("its chunks have no sizes") from None


async def _rest(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while part := await reader.read(MAX_HEAD_BYTES):
        _allowed(len(body) + len(part))
        body += part
    return bytes(body)


def _allowed(size: int) -> int:
    if not 0 <= size <= MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} bytes")
    return size
