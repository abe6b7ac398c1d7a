"""A replica that is to stop has its clients connect anew, and takes what they have begun to send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.http.engine import JSON_ANSWER, Turn
from tests.http.test_failures import EVENT
from tests.http.world import World, eventually, raw_request

from tailrace.http import serving

BODY = b'{"model": "org/model", "stream": true}'
LAST = b"0\r\n\r\n"
CLOSE = b"connection: close"


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection is closed."""
    return await asyncio.wait_for(reader.read(), 5)


@asynccontextmanager
async def dialled(world: World) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a connection of its own."""
    reader, writer = await world.dial()
    yield reader, writer
    writer.close()


async def test_a_connection_that_was_idle_for_long_is_closed_and_a_fresh_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 600.0)
    async with World() as world, dialled(world) as (idle, writer):
        await world.simple()
        writer.write(raw_request(BODY))
        assert CLOSE not in (await idle.readuntil(JSON_ANSWER)).lower()
        world.door.leave()
        assert world.door.open_connections() == 1, "its client may be sending at this moment"
        monkeypatch.setattr(serving, "IDLE_SECONDS", 0.0)
        await eventually(lambda: not world.door.open_connections(), "idle connections")
        assert await ended(idle) == b""


async def test_a_request_on_a_new_connection_is_served_and_ends_it() -> None:
    async with World() as world:
        await world.simple()
        world.door.leave()
        async with dialled(world) as (late, writer):
            writer.write(raw_request(BODY))
            answer = await ended(late)
    assert CLOSE in answer.lower()
    assert answer.endswith(JSON_ANSWER)


@pytest.mark.parametrize("path", ["/v1/models", "/nothing/here"])
async def test_an_answer_that_is_no_stream_ends_its_connection_too(path: str) -> None:
    async with World() as world:
        await world.simple()
        world.door.leave()
        async with dialled(world) as (late, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert CLOSE in (await ended(late)).lower()


async def test_a_door_that_stopped_listening_still_serves_who_is_connected() -> None:
    async with World() as world, dialled(world) as (reader, writer):
        await world.simple()
        await world.door.stop_listening()
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await world.dial()
        writer.write(raw_request(BODY))
        await reader.readuntil(JSON_ANSWER)


async def test_a_connection_on_which_a_request_has_begun_to_come_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.0)
    async with World() as world, dialled(world) as (reader, writer):
        await world.simple()
        writer.write(raw_request(BODY))
        await reader.readuntil(JSON_ANSWER)
        world.door.leave()
        writer.write(raw_request(BODY)[:20])
        assert world.door.open_connections() == 1, "it is in the kernel, or half of it is read"
        await asyncio.sleep(0.05)
        assert world.door.open_connections() == 1
        writer.write(raw_request(BODY)[20:])
        assert (await ended(reader)).endswith(JSON_ANSWER)


async def test_after_a_stream_that_had_begun_one_more_request_is_taken_and_ends_the_connection() -> None:
    """Its head has told the client to keep the connection: closing it would lose what the client sends at once."""
    async with World() as world, dialled(world) as (reader, writer):
        (engine,) = await world.simple()
        go_on = asyncio.Event()

        async def one_then_wait(turn: Turn) -> None:
            await turn.stream_head()
            await turn.chunk(EVENT)
            await go_on.wait()
            await turn.chunk(EVENT)
            await turn.last_chunk()

        engine.script.append(one_then_wait)
        writer.write(raw_request(BODY))
        await reader.readuntil(EVENT)
        world.door.leave()
        go_on.set()
        assert EVENT in await asyncio.wait_for(reader.readuntil(LAST), 5)
        assert world.door.open_connections() == 1
        writer.write(raw_request(BODY))
        answer = await ended(reader)
    assert CLOSE in answer.lower()
    assert answer.endswith(JSON_ANSWER)


async def test_a_body_that_is_on_its_way_is_read_to_its_end() -> None:
    async with World() as world, dialled(world) as (reader, writer):
        await world.simple()
        request = raw_request(BODY)
        writer.write(request[:-10])
        await asyncio.sleep(0.3)
        world.door.leave()
        assert world.door.open_connections() == 1
        writer.write(request[-10:])
        assert (await ended(reader)).endswith(JSON_ANSWER)
