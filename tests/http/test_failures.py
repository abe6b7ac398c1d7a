"""What a failing engine means to a client: another try while nothing was sent, a clean end afterwards."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping

import pytest
from aiohttp.resolver import DefaultResolver
from tests.http.engine import (
    JSON_ANSWER,
    Behaviour,
    ScriptedEngine,
    Turn,
    hang_up,
    reset,
    stay_silent,
    stream,
)
from tests.http.world import MODEL, World, endpoint, eventually, raw_request

from tailrace.core.model import Timeouts

STREAM = {"model": MODEL, "stream": True}
PLAIN = {"model": MODEL}
EVENT = b'data: {"a": 1}\n\n'


async def head_then_hang_up(turn: Turn) -> None:
    await turn.stream_head()
    turn.close()


async def half_a_head(turn: Turn) -> None:
    await turn.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    turn.close()


def answering(*head: bytes) -> Behaviour:
    async def behave(turn: Turn) -> None:
        await turn.send(b"\r\n".join([*head, b"Content-Length: 2", b"", b"{}"]))

    return behave


async def no_http(turn: Turn) -> None:
    await turn.send(b"what?\r\n\r\n")
    turn.close()


def declining(status: str) -> Behaviour:
    async def behave(turn: Turn) -> None:
        await turn.head("Content-Length: 4", "Retry-After: 7", status=status)
        await turn.send(b"busy")

    return behave


def closed_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def broken_after(*events: bytes, how: Behaviour = hang_up) -> Behaviour:
    async def behave(turn: Turn) -> None:
        await turn.stream_head()
        for event in events:
            await turn.chunk(event)
        await asyncio.sleep(0.05)
        await how(turn)

    return behave


def terminal(answer: bytes) -> dict[str, object]:
    """Return the error of the last event of a stream."""
    assert answer.endswith(b"\n\n")
    assert b"[DONE]" not in answer
    last = answer.rstrip(b"\n").rpartition(b"\n\n")[2]
    error: dict[str, object] = json.loads(last.removeprefix(b"data: "))["error"]
    return error


async def test_a_connection_whose_stream_was_ended_with_an_error_takes_the_next_request() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(broken_after(EVENT))
        reader, writer = await world.dial()
        writer.write(raw_request(json.dumps(STREAM).encode()))
        got = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 5)
        assert b"upstream_broken" in got
        assert b"connection: close" not in got.lower(), "who is told nothing keeps it, and may use it at once"
        writer.write(raw_request(json.dumps(PLAIN).encode()))
        assert (await asyncio.wait_for(reader.readuntil(JSON_ANSWER), 5)).startswith(b"HTTP/1.1 200")
        writer.close()


# Before the first byte


@pytest.mark.parametrize(
    "fault",
    [
        hang_up,
        reset,
        head_then_hang_up,
        half_a_head,
        no_http,
        answering(b"HTTP/1.1 200 O\x01K"),
        answering(b"HTTP/1.1 200 OK", b"X-Odd: a\x01b"),
        *(answering(b"HTTP/1.1 %b Odd" % status) for status in (b"000", b"101", b"600", b"999")),
    ],
)
async def test_a_failure_before_the_first_byte_is_tried_at_another_endpoint(fault: Behaviour) -> None:
    async with World() as world:
        first, second = await world.simple(count=2)
        first.default = fault
        for _ in range(3):
            status, answer, response = await world.post(PLAIN)
            assert (status, answer) == (200, JSON_ANSWER)
            assert response.headers["x-gateway-destination-endpoint"] == second.address
    assert set(world.heard.retries) == {"no-response"}


async def test_an_endpoint_that_refuses_connections_is_passed_over() -> None:
    async with World() as world:
        good = await world.engine()
        world.serve(endpoint("a", closed_port()), endpoint("b", good.address))
        status, _, _ = await world.post(PLAIN)
        assert status == 200
    assert world.heard.retries in ([], ["connect"])


async def test_a_lonely_endpoint_that_refuses_connections_is_502() -> None:
    async with World() as world:
        world.serve(endpoint("a", closed_port()))
        status, answer, _ = await world.post(PLAIN)
        assert status == 502
        error = json.loads(answer)["error"]
        assert error["code"] == "upstream_unreachable"
        assert error["type"] == "server_error"
        assert "repeat the request" in error["message"]
    assert world.heard.ends[0].code == "upstream_unreachable"


async def test_an_endpoint_whose_name_is_not_found_in_time_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(DefaultResolver, "resolve", never)
    limits = Timeouts(connect=0.1, first_byte=3.0, total=3.0)
    async with World() as world:
        good = await world.engine()
        world.serve(endpoint("a", "model-server:8000"), timeouts=limits)
        assert (await world.post(STREAM))[0] == 502
        world.serve(endpoint("a", "model-server:8000"), endpoint("b", good.address), timeouts=limits)
        assert (await world.post(STREAM))[0] == 200
    assert world.heard.retries in ([], ["connect"])


async def test_a_status_that_ends_no_answer_is_not_passed_on() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = answering(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: x", b"Connection: upgrade")
        status, answer, _ = await world.post(PLAIN)
        assert (status, json.loads(answer)["error"]["code"]) == (502, "upstream_closed")


async def test_an_address_that_is_none_is_502() -> None:
    async with World() as world:
        world.serve(endpoint("a", "no such host:x"))
        status, _, _ = await world.post(PLAIN)
        assert status == 502


BUSY = declining("503 Service Unavailable")


@pytest.mark.parametrize("fault", [BUSY, declining("429 Too Many Requests")])
async def test_a_request_that_an_engine_declines_is_tried_at_another_endpoint(fault: Behaviour) -> None:
    async with World() as world:
        first, _ = await world.simple(count=2)
        first.default = fault
        for _ in range(3):
            status, answer, _ = await world.post(PLAIN)
            assert (status, answer) == (200, JSON_ANSWER)
        assert (len(first.received), first.connections) == (3, 1)
    assert world.heard.retries == ["declined"] * 3
    assert world.heard.ends[0].code == ""


async def test_an_engine_that_declines_without_an_end_of_its_answer_is_not_waited_for() -> None:
    async def endless(turn: Turn) -> None:
        await turn.head("Content-Length: 4", status="503 Service Unavailable")
        await stay_silent(turn)

    async with World() as world:
        first, _ = await world.simple(count=2)
        first.default = endless
        for _ in range(2):
            assert (await world.post(PLAIN))[0] == 200
        await asyncio.wait_for(first.left.wait(), 5)


async def test_the_answer_of_the_only_engine_that_there_is_is_passed_on() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = BUSY
        status, answer, response = await world.post(PLAIN)
        assert (status, answer, response.headers["Retry-After"]) == (503, b"busy", "7")
    assert world.heard.ends[0].code == "503"
    assert world.heard.retries == []


async def test_when_all_decline_the_last_answer_is_passed_on() -> None:
    async with World() as world:
        engines = await world.simple(count=5)
        for engine in engines:
            engine.default = BUSY
        status, answer, response = await world.post(PLAIN)
        assert (status, answer, response.headers["Retry-After"]) == (503, b"busy", "7")
        assert sum(len(engine.received) for engine in engines) == 3


async def test_three_attempts_are_made_at_most() -> None:
    async with World() as world:
        engines = await world.simple(count=5)
        for engine in engines:
            engine.default = hang_up
        status, answer, _ = await world.post(PLAIN)
        assert (status, json.loads(answer)["error"]["code"]) == (502, "upstream_closed")
        assert sum(len(engine.received) for engine in engines) == 3


async def test_the_request_is_sent_whole_at_each_attempt() -> None:
    async with World() as world:
        first, second = await world.simple(count=2)
        first.default = hang_up
        body = json.dumps({"model": MODEL, "text": "x" * 2_000_000}).encode()
        for _ in range(2):
            await world.post(body)
        assert {r.body for r in second.received} == {body.replace(b"org/model", b"served")}


async def test_the_retry_keeps_the_request_id() -> None:
    async with World() as world:
        first, second = await world.simple(count=2)
        first.default = hang_up
        for _ in range(2):
            await world.post(PLAIN)
        ids = [r.header("idempotency-key") for engine in (first, second) for r in engine.received]
        assert len(set(ids)) == 2
        assert len(ids) > 2


async def _stale(engine: ScriptedEngine, how: Behaviour) -> None:
    """Have the engine answer one request, then end the kept connection when the next one comes on it."""

    async def answer_then_end(turn: Turn) -> None:
        await turn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    engine.script.extend([answer_then_end, how])


@pytest.mark.parametrize("how", [hang_up, reset])
async def test_a_stale_connection_is_tried_again_at_the_same_endpoint(how: Behaviour) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        await _stale(engine, how)
        await world.post(PLAIN)
        status, answer, _ = await world.post(PLAIN)
        assert (status, answer) == (200, JSON_ANSWER)
        assert engine.connections == 2
    assert world.heard.retries == ["stale"]


async def test_a_new_connection_that_closes_is_not_called_stale() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = hang_up
        status, _, _ = await world.post(PLAIN)
        assert status == 502
        assert len(engine.received) == 1
    assert world.heard.retries == []


async def test_a_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    async with World() as world:
        (engine,) = await world.simple()

        async def answer_then_close(turn: Turn) -> None:
            await turn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            turn.close()

        engine.default = answer_then_close
        for _ in range(5):
            status, _, _ = await world.post(PLAIN)
            assert status == 200
            await asyncio.sleep(0.01)
    assert world.heard.retries == []


async def test_an_answer_that_nobody_asked_for_reaches_nobody() -> None:
    async def twice(turn: Turn) -> None:
        await answering(b"HTTP/1.1 200 OK")(turn)
        await asyncio.sleep(0.05)
        await turn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nsomebody else's.")
        sent.set()

    sent = asyncio.Event()
    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(twice)
        assert (await world.post(PLAIN))[1] == b"{}"
        await asyncio.wait_for(sent.wait(), 5)
        await asyncio.sleep(0.05)
        assert [(await world.post(PLAIN))[1] for _ in range(3)] == [JSON_ANSWER] * 3
        assert engine.connections == 2
    assert world.heard.retries == []


# Time limits


async def test_a_streamed_answer_that_does_not_begin_in_time_is_504_and_not_tried_again() -> None:
    async with World() as world:
        first, second = await world.simple(count=2, timeouts=Timeouts(first_byte=0.1))
        first.default = second.default = stay_silent
        status, answer, _ = await world.post(STREAM)
        assert (status, json.loads(answer)["error"]["code"]) == (504, "upstream_timeout")
        assert json.loads(answer)["error"]["type"] == "timeout_error"
        assert len(first.received) + len(second.received) == 1
        await eventually(lambda: first.left.is_set() or second.left.is_set(), "asked")


async def test_a_head_without_a_body_does_not_count_as_the_first_byte() -> None:
    async def head_only(turn: Turn) -> None:
        await turn.stream_head()
        await stay_silent(turn)

    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(first_byte=0.1))
        engine.default = head_only
        status, _, _ = await world.post(STREAM)
        assert status == 504


async def test_an_answer_that_is_not_streamed_may_take_its_total_time() -> None:
    async def think(turn: Turn) -> None:
        await asyncio.sleep(0.3)
        await turn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
        await asyncio.sleep(0.3)
        await turn.send(b"ok")

    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(first_byte=0.1, idle=0.1))
        engine.default = think
        status, answer, _ = await world.post(PLAIN)
        assert (status, answer) == (200, b"okok")


async def test_an_answer_that_is_not_streamed_ends_at_its_total_time() -> None:
    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(total=0.2))
        engine.default = stay_silent
        status, answer, _ = await world.post(PLAIN)
        assert (status, json.loads(answer)["error"]["code"]) == (504, "upstream_timeout")


async def test_the_total_time_counts_over_all_attempts() -> None:
    async def late_hang_up(turn: Turn) -> None:
        await asyncio.sleep(0.6)
        turn.close()

    async with World() as world:
        engines = await world.simple(count=3, timeouts=Timeouts(total=1.0))
        for engine in engines:
            engine.default = late_hang_up
        status, _, _ = await world.post(PLAIN)
        assert status == 504
        assert sum(len(engine.received) for engine in engines) == 2


async def test_a_stream_that_falls_silent_ends_with_an_error_event() -> None:
    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(idle=0.1))
        engine.default = broken_after(EVENT, how=stay_silent)
        status, answer, _ = await world.post(STREAM)
        assert status == 200
        assert answer.startswith(EVENT)
        assert terminal(answer)["code"] == "upstream_idle"


async def test_a_stream_that_keeps_sending_is_not_idle() -> None:
    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(idle=0.15))
        engine.default = stream(*[EVENT] * 8, pause=0.05)
        _, answer, _ = await world.post(STREAM)
        assert answer == EVENT * 8


async def test_a_stream_ends_at_its_total_time_however_busy() -> None:
    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(total=0.3))
        engine.default = stream(*[EVENT] * 100, pause=0.02)
        _, answer, _ = await world.post(STREAM)
        assert terminal(answer)["code"] == "upstream_timeout"


# After the first byte


@pytest.mark.parametrize("how", [hang_up, reset])
async def test_a_stream_that_breaks_ends_with_an_error_event_and_is_not_tried_again(how: Behaviour) -> None:
    async with World() as world:
        first, second = await world.simple(count=2)
        first.default = second.default = broken_after(EVENT, EVENT, how=how)
        status, answer, response = await world.post(STREAM)
        assert status == 200
        assert answer.startswith(EVENT * 2)
        assert terminal(answer)["code"] == "upstream_broken"
        assert terminal(answer)["type"] == "server_error"
        assert len(first.received) + len(second.received) == 1
        assert response.headers["Transfer-Encoding"] == "chunked"
    assert world.heard.ends[0].code == "upstream_broken"
    assert world.router.status().outcomes["lost"] == 1


async def test_an_event_in_hand_is_closed_before_the_error() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = broken_after(EVENT, b"data: {}")
        _, answer, _ = await world.post(STREAM)
        assert answer.startswith(EVENT + b"data: {}\n\ndata: {")
        assert terminal(answer)["code"] == "upstream_broken"


async def test_an_event_that_has_ended_in_pieces_is_not_ended_again() -> None:
    async def in_pieces(turn: Turn) -> None:
        await turn.stream_head()
        for piece in (b"data: {}", b"\n", b"\n"):
            await turn.chunk(piece)
            await asyncio.sleep(0.03)
        turn.close()

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = in_pieces
        _, answer, _ = await world.post(STREAM)
        assert answer.startswith(b'data: {}\n\ndata: {"error"')


async def cut_short(world: World, body: Mapping[str, object]) -> bytes:
    """Return what arrives of an answer that must be seen to be incomplete."""
    reader, writer = await world.dial()
    content = json.dumps(body).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
    got = b""
    try:
        while chunk := await asyncio.wait_for(reader.read(65536), 5):
            got += chunk
    except ConnectionResetError:
        pass
    writer.close()
    return got


async def test_a_broken_answer_of_known_length_is_broken_off() -> None:
    async def half(turn: Turn) -> None:
        await turn.head("Content-Length: 10", "Content-Type: text/event-stream")
        await turn.send(b"12345")
        turn.close()

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = half
        assert (await cut_short(world, STREAM)).endswith(b"\r\n\r\n12345")


async def test_a_broken_answer_that_is_no_event_stream_is_broken_off() -> None:
    async def half(turn: Turn) -> None:
        await turn.head("Transfer-Encoding: chunked", "Content-Type: application/json")
        await turn.chunk(b'{"a":')
        turn.close()

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = half
        got = await cut_short(world, PLAIN)
        assert got.endswith(b'5\r\n{"a":\r\n')


async def test_a_broken_answer_that_is_compressed_is_broken_off() -> None:
    async def half(turn: Turn) -> None:
        await turn.stream_head("Content-Encoding: gzip")
        await turn.chunk(b"\x1f\x8b")
        turn.close()

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = half
        assert (await cut_short(world, STREAM)).endswith(b"\r\n\x1f\x8b\r\n")


async def test_a_connection_whose_answer_broke_is_not_used_again() -> None:
    async with World() as world:
        (engine,) = await world.simple(timeouts=Timeouts(idle=0.1))
        engine.script.append(broken_after(EVENT, how=stay_silent))
        await world.post(STREAM)
        await asyncio.wait_for(engine.left.wait(), 5)
        status, _, _ = await world.post(PLAIN)
        assert status == 200
        assert engine.connections == 2


async def test_an_engines_cookies_are_its_clients_and_not_ours() -> None:
    async def bake(turn: Turn) -> None:
        await turn.head("Content-Length: 2", "Set-Cookie: session=1; Path=/")
        await turn.send(b"ok")

    async with World() as world:
        engine = await world.engine(bake)
        world.serve(endpoint("a", engine.address.replace("127.0.0.1", "localhost")))
        for _ in range(2):
            _, _, response = await world.post(PLAIN)
            assert response.headers["Set-Cookie"] == "session=1; Path=/"
        assert engine.received[1].header("cookie") is None
