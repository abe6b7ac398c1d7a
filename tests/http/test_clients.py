"""A client that leaves or stops reading frees its slot and ends the engine's work, whatever the phase."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from tests.http.engine import Behaviour, Turn, stay_silent
from tests.http.world import MODEL, World, eventually, raw_request

from tailrace.core.model import Timeouts
from tailrace.http import serving
from tailrace.http.carry import Carry, _Relayed
from tailrace.http.upstream import Upstream

STREAM = json.dumps({"model": MODEL, "stream": True}).encode()
EVENT = b'data: {"a": 1}\n\n'


def leave_politely(writer: asyncio.StreamWriter) -> None:
    writer.close()


def leave_with_a_reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def stop_sending(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


Leave = Callable[[asyncio.StreamWriter], None]
LEAVE = pytest.mark.parametrize("leave", [leave_politely, leave_with_a_reset, stop_sending])


async def endless(turn: Turn) -> None:
    await turn.stream_head()
    while True:
        await turn.chunk(EVENT)
        await asyncio.sleep(0.01)


async def a_pause_after_the_first_event(turn: Turn) -> None:
    await turn.stream_head()
    await turn.chunk(EVENT)
    await stay_silent(turn)


async def a_flood(turn: Turn) -> None:
    await turn.stream_head()
    while True:
        await turn.chunk(EVENT * 5000)


@LEAVE
async def test_a_client_that_leaves_before_the_first_byte_frees_its_slot(leave: Leave) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = stay_silent
        _, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await eventually(lambda: len(engine.received) == 1, "not sent")
        assert world.router.in_flight() == 1
        leave(writer)
        await asyncio.wait_for(engine.left.wait(), 5)
        await world.audit()
        writer.close()
    assert world.heard.ends[0].code == "client-gone"
    assert world.router.status().outcomes["client-gone"] == 1


@LEAVE
@pytest.mark.parametrize("answer", [endless, a_pause_after_the_first_event])
async def test_a_client_that_leaves_mid_stream_frees_its_slot(leave: Leave, answer: Behaviour) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = answer
        reader, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await reader.readuntil(EVENT)
        leave(writer)
        await asyncio.wait_for(engine.left.wait(), 5)
        await world.audit()
        writer.close()
    assert world.heard.ends[0].code == "client-gone"


async def test_a_client_that_leaves_while_it_sends_its_body_leaves_nothing_behind() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        _, writer = await world.dial()
        writer.write(raw_request(STREAM)[:-3])
        await eventually(lambda: world.heard.running == 1, "not come in")
        leave_with_a_reset(writer)
        await world.audit()
        assert not engine.received


async def test_a_client_that_stops_reading_holds_the_engine_back_and_is_let_go_in_the_end() -> None:
    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(idle=0.3))
        engine.default = a_flood
        reader, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await reader.readuntil(EVENT)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(engine.left.wait(), 10)
        await world.audit()
        writer.close()
    assert world.heard.ends[0].code == "client-gone"
    assert world.router.status().outcomes["client-gone"] == 1


async def test_a_client_that_is_noticed_gone_by_a_write_is_gone_and_its_engine_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, post = _Relayed.write, Upstream.post
    held: list[aiohttp.ClientResponse] = []

    async def write_too_late(response: _Relayed, data: bytes) -> None:
        if held[0].content.total_bytes > len(EVENT):
            assert response._req is not None
            assert response._req.transport is not None
            response._req.transport.abort()  # the loop has yet to tell the handler
        await write(response, data)

    async def hold(upstream: Upstream, *asked: Any) -> aiohttp.ClientResponse:  # noqa: ANN401 - as they come
        held.append(await post(upstream, *asked))
        return held[0]

    monkeypatch.setattr(_Relayed, "write", write_too_late)
    monkeypatch.setattr(Upstream, "post", hold)
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = endless
        _, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await asyncio.wait_for(engine.left.wait(), 5)
        await world.audit()
        assert held[0].closed
        writer.close()
    assert world.heard.ends[0].code == "client-gone"
    assert world.router.status().outcomes["client-gone"] == 1


async def test_a_slow_client_gets_everything() -> None:
    size = 6_000_000

    async def much(turn: Turn) -> None:
        await turn.head(f"Content-Length: {size}")
        await turn.send(b"x" * size)

    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(idle=1.0))
        engine.default = much
        reader, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < size:
            got += len(await asyncio.wait_for(reader.read(300_000), 5))
            await asyncio.sleep(0.02)
        assert got == size
        writer.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_door_that_closes_waits_until_a_client_has_got_the_end_of_its_answer(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.05)
    size = 60_000

    async def large(turn: Turn) -> None:
        await turn.head(f"Content-Length: {size}")
        await turn.send(b"x" * size)

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = large
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", world.proxy_port))
            if when == "before":
                world.door.leave()
            sock.sendall(raw_request(STREAM))
            await eventually(lambda: engine.received != [] and world.proxy.in_flight() == 0, "not ended")
            world.door.leave()
            await asyncio.sleep(0.2)
            assert world.door.open_connections() == 1
            got = 0
            while got < size:
                got += len(await asyncio.to_thread(sock.recv, size))
            await eventually(lambda: world.door.open_connections() == 0, "unread")


async def test_a_client_that_leaves_during_a_retry_frees_its_slot() -> None:
    async def late_hang_up(turn: Turn) -> None:
        await asyncio.sleep(0.05)
        turn.close()

    async with World() as world:
        first, second = await world.simple(count=2)
        first.script.append(late_hang_up)
        second.script.append(late_hang_up)
        first.default = second.default = stay_silent
        _, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await eventually(lambda: len(first.received) + len(second.received) == 2, "no retry")
        writer.close()
        await world.audit()
    assert world.router.status().outcomes["client-gone"] == 1
    assert world.router.status().outcomes["rerouted"] == 1


async def test_the_request_after_a_clients_departure_is_served() -> None:
    async with World() as world:
        (engine,) = await world.simple(capacity=1)
        engine.script.append(stay_silent)
        for _ in range(2):
            _, writer = await world.dial()
            writer.write(raw_request(STREAM))
            await eventually(lambda: world.router.in_flight() == 1 or len(engine.received) > 1, "not sent")
            writer.close()
            await world.audit()
        status, _, _ = await world.post(STREAM)
        assert status == 200


async def test_many_clients_that_come_and_go_at_random_leave_nothing_behind() -> None:
    async with World() as world:
        engines = await world.simple(count=3, capacity=100)
        for engine in engines:
            engine.default = endless

        async def visit(patience: float) -> None:
            _, writer = await world.dial()
            writer.write(raw_request(STREAM))
            await asyncio.sleep(patience)
            (leave_politely if patience > 0.05 else leave_with_a_reset)(writer)

        await asyncio.gather(*(visit(0.001 * i) for i in range(100)))


@pytest.mark.parametrize(
    ("timeouts", "blocks"), [(Timeouts(idle=0.1), True), (Timeouts(total=0.2), False), (Timeouts(total=0.2), True)]
)
async def test_a_client_that_never_reads_the_end_is_let_go_though_the_engine_is_done(
    monkeypatch: pytest.MonkeyPatch,
    timeouts: Timeouts,
    blocks: bool,
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(_Relayed, "write_eof", never)
    monkeypatch.setattr(Carry, "_client_blocks", lambda _: blocks)
    async with World() as world:
        await world.simple(timeouts=timeouts)
        reader, writer = await world.dial()
        writer.write(raw_request(STREAM))
        await eventually(lambda: world.router.status().outcomes["completed"] == 1, "not done")
        assert world.proxy.in_flight() == 1
        with suppress(ConnectionResetError):
            await reader.read()
        await world.audit()
        writer.close()
    assert world.heard.ends[0].code == "client-gone"
