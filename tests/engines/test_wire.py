"""The connection to an engine, against servers that answer in every legal way, and in others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tailrace.engines import wire
from tailrace.engines.wire import Connection, Page

OK = b"HTTP/1.1 200 OK\r\n"


class Far:
    """A server that answers each request with the next of its answers; None closes the connection instead."""

    def __init__(self, *answers: bytes | None, then_close: bool = False) -> None:
        self.answers = list(answers)
        self.then_close = then_close
        self.requests: list[bytes] = []
        self.connections = 0
        self.serving: list[asyncio.Task[None]] = []

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.answer_all(reader, writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.answers:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            answer = self.answers.pop(0)
            if answer is None:
                break
            writer.write(answer)
            if self.then_close:
                break


@asynccontextmanager
async def reached(far: Far) -> AsyncIterator[Connection]:
    server = await asyncio.start_server(far.connected, "127.0.0.1", 0)
    connection = Connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        for task in far.serving:
            task.cancel()
        await asyncio.gather(*far.serving, return_exceptions=True)
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"content-length:5\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        OK + b"TRANSFER-ENCODING: Chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
async def test_a_page_is_read_and_the_connection_kept(answer: bytes) -> None:
    far = Far(answer, answer, answer)
    async with reached(far) as connection:
        assert [await connection.get("/metrics") for _ in range(3)] == [Page(200, b"hello")] * 3
    assert far.connections == 1
    assert far.requests[0].startswith(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    far = Far(b"HTTP/1.0 200 OK\r\n\r\nhello", b"HTTP/1.0 503 Busy\r\n\r\n", then_close=True)
    async with reached(far) as connection:
        assert await connection.get("/") == Page(200, b"hello")
        assert await connection.get("/") == Page(503, b"")
    assert far.connections == 2


async def test_a_connection_that_was_closed_while_idle_costs_nothing() -> None:
    page = OK + b"Content-Length: 2\r\n\r\nok"
    far = Far(page, None, page)
    async with reached(far) as connection:
        assert await connection.get("/") == Page(200, b"ok")
        assert await connection.get("/") == Page(200, b"ok")
    assert far.connections == 2


async def test_a_connection_that_the_engine_wants_closed_is_closed() -> None:
    page = OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok"
    far = Far(page, page)
    async with reached(far) as connection:
        assert [await connection.get("/") for _ in range(2)] == [Page(200, b"ok")] * 2
    assert far.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"SSH-2.0-OpenSSH\r\n\r\n",
        OK + b"Content-Length: 9\r\n\r\nhello",
        OK + b"Content-Length: 999999999999\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\nhello",
        OK + b"X: " + b"x" * wire.MAX_HEAD_BYTES * 2 + b"\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * wire.MAX_HEAD_BYTES * 2,
    ],
)
async def test_what_is_no_page_is_an_error_and_the_next_one_is_read(answer: bytes | None) -> None:
    far = Far(answer, OK + b"Content-Length: 2\r\n\r\nok", then_close=True)
    async with reached(far) as connection:
        with pytest.raises((OSError, ValueError)):
            await connection.get("/")
        assert await connection.get("/") == Page(200, b"ok")


async def test_too_long_a_body_without_a_length_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    async with reached(Far(OK + b"\r\n" + b"x" * 5000, then_close=True)) as connection:
        with pytest.raises(ValueError, match="it is longer than 1000 bytes"):
            await connection.get("/")


async def test_a_timeout_closes_the_connection_so_that_no_late_answer_is_taken_for_the_next() -> None:
    class Late(Far):
        async def answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = self.connections
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.2 if number == 1 else 0.0)
            writer.write(OK + b"Content-Length: 1\r\n\r\n%d" % number)
            await reader.read()

    async with reached(Late()) as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.get("/")
        assert await connection.get("/") == Page(200, b"2")


async def test_nobody_there_is_an_error() -> None:
    with pytest.raises(OSError, match="Connect"):
        await Connection("127.0.0.1", 1).get("/")


async def test_an_address_of_ipv6_is_named_in_brackets() -> None:
    assert b"Host: [::1]:8000\r\n" in Connection("::1", 8000)._head
