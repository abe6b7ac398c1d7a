"""A replica that is to stop has its clients connect anew, and takes what they have begun to send."""

from __future__ import annotations

import asyncio

from tests.http.engine import JSON_ANSWER, Turn
from tests.http.test_failures import EVENT
from tests.http.world import World, raw_request

BODY = b'{"model": "org/model", "stream": true}'


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection is closed."""
    return await asyncio.wait_for(reader.read(), 5)


async def test_an_idle_connection_is_closed_and_a_new_one_is_served_once() -> None:
    async with World() as world:
        await world.simple()
        idle, idle_writer = await world.dial()
        idle_writer.write(raw_request(BODY))
        assert (await idle.readuntil(JSON_ANSWER)).lower().count(b"connection: close") == 0
        world.proxy.leave()
        assert await ended(idle) == b""
        late, late_writer = await world.dial()
        late_writer.write(raw_request(BODY))
        answer = await ended(late)
        assert b"connection: close" in answer.lower()
        assert answer.endswith(JSON_ANSWER)
        idle_writer.close()
        late_writer.close()


async def test_a_stream_runs_to_its_end_and_its_connection_goes_with_it() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        go_on = asyncio.Event()

        async def one_then_wait(turn: Turn) -> None:
            await turn.stream_head()
            await turn.chunk(EVENT)
            await go_on.wait()
            await turn.chunk(EVENT)
            await turn.last_chunk()

        engine.script.append(one_then_wait)
        reader, writer = await world.dial()
        writer.write(raw_request(BODY))
        await reader.readuntil(EVENT)
        world.proxy.leave()
        go_on.set()
        assert EVENT in await ended(reader)
        writer.close()


async def test_a_body_that_is_on_its_way_is_read_to_its_end() -> None:
    async with World() as world:
        await world.simple()
        reader, writer = await world.dial()
        request = raw_request(BODY)
        writer.write(request[:-10])
        await asyncio.sleep(0.05)
        world.proxy.leave()
        writer.write(request[-10:])
        assert (await ended(reader)).endswith(JSON_ANSWER)
        writer.close()
