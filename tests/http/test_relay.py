"""Requests and answers cross the proxy byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from tests.http.engine import JSON_ANSWER, Turn, stream
from tests.http.world import ALIAS, CHAT, MODEL, SERVED, World, endpoint, eventually, raw_request

from tailrace.core.model import ModelSpec

BODY = b'{ "model" : "served",\t"messages":[{"role":"user","content":"h\\u0069 \xc3\xa9"}], "x":1.0 }'
EVENTS = (b'data: {"a": 1}\n\n', b'data: {"b":  2}\n\n', b"data: [DONE]\n\n")


async def test_a_body_that_needs_no_rewrite_arrives_byte_for_byte() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        body = BODY.replace(b"served", b"lora")
        status, answer, response = await world.post(body, headers={"Content-Type": "application/json"})
    assert (status, answer) == (200, JSON_ANSWER)
    assert engine.received[0].body == body
    assert response.headers["x-gateway-destination-endpoint"] == engine.address
    assert response.headers["Content-Length"] == str(len(JSON_ANSWER))


async def test_only_the_models_name_is_rewritten_for_an_alias() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        body = b'{"messages": [{"model": "%b"}],  "model":"%b" }' % (ALIAS.encode(), ALIAS.encode())
        await world.post(body)
    assert engine.received[0].body == body.replace(b'"model":"gpt-4o-mini"', b'"model":"served"')
    assert engine.received[0].header("content-length") == str(len(engine.received[0].body))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"])
async def test_every_openai_path_is_relayed_with_its_query(path: str) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        status, _, _ = await world.post({"model": MODEL}, f"{path}?a=%2F&b=1")
    assert status == 200
    assert engine.received[0].line == f"POST {path}?a=%2F&b=1 HTTP/1.1"


async def test_a_stream_is_relayed_event_by_event_as_it_comes() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        go_on = asyncio.Event()

        async def one_then_wait(turn: Turn) -> None:
            await turn.stream_head()
            await turn.chunk(EVENTS[0])
            await go_on.wait()
            await turn.chunk(EVENTS[1])
            await turn.chunk(EVENTS[2])
            await turn.last_chunk()

        engine.script.append(one_then_wait)
        async with world.session.post(world.url(), json={"model": MODEL, "stream": True}) as response:
            assert await response.content.readany() == EVENTS[0]
            assert world.router.in_flight() == 1
            go_on.set()
            assert await response.content.read() == EVENTS[1] + EVENTS[2]
    assert world.heard.ends[0].code == ""
    assert world.heard.ends[0].ttft is not None


async def test_a_gzipped_answer_stays_gzipped() -> None:
    packed = gzip.compress(JSON_ANSWER * 50)

    async def behave(turn: Turn) -> None:
        await turn.head("Content-Encoding: gzip", "Content-Type: application/json", f"Content-Length: {len(packed)}")
        await turn.send(packed)

    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(behave)
        _, answer, response = await world.post({"model": MODEL}, headers={"Accept-Encoding": "gzip"})
    assert answer == packed
    assert response.headers["Content-Encoding"] == "gzip"
    assert engine.received[0].header("accept-encoding") == "gzip"


async def test_an_engines_error_is_relayed_with_its_status_and_counted() -> None:
    async def refuse(turn: Turn) -> None:
        await turn.head("Content-Length: 4", "Content-Type: text/plain", status="418 Short And Stout")
        await turn.send(b"tea!")

    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(refuse)
        status, answer, response = await world.post({"model": MODEL})
    assert (status, answer, response.reason) == (418, b"tea!", "Short And Stout")
    assert world.heard.ends[0].code == "418"


async def test_an_empty_answer_is_relayed() -> None:
    async def nothing(turn: Turn) -> None:
        await turn.head(status="204 No Content")

    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(nothing)
        status, answer, _ = await world.post({"model": MODEL})
    assert (status, answer) == (204, b"")


async def test_headers_of_one_connection_do_not_cross_and_others_do() -> None:
    async def with_headers(turn: Turn) -> None:
        await turn.head(
            *("Content-Length: 2", "Connection: x-private", "X-Private: 1", "Keep-Alive: 9"),
            *("Set-Cookie: a=1", "Set-Cookie: b=2", "Server: engine", "x-engine: yes"),
        )
        await turn.send(b"ok")

    sent = {"Connection": "x-mine", "X-Mine": "1", "TE": "trailers", "Authorization": "Bearer k", "Cookie": "c=3"}
    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(with_headers)
        _, _, response = await world.post({"model": MODEL}, headers=sent)
        got = engine.received[0]
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert response.headers["Server"] == "engine"
    assert response.headers["x-engine"] == "yes"
    assert "X-Private" not in response.headers
    assert "Keep-Alive" not in response.headers
    assert (got.header("authorization"), got.header("cookie")) == ("Bearer k", "c=3")
    assert (got.header("x-mine"), got.header("te"), got.header("host")) == (None, None, engine.address)


@pytest.mark.parametrize(
    "sent",
    [(), ("User-Agent",), ("Accept", "Accept-Encoding"), ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")],
)
async def test_no_header_is_added_that_says_what_the_client_has_not_said(sent: tuple[str, ...]) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        reader, writer = await world.dial()
        writer.write(raw_request(b'{"model": "org/model"}', "Connection: close", *(f"{name}: x/y" for name in sent)))
        await reader.read()
        writer.close()
    said = [name.lower() for name, _ in engine.received[0].headers]
    ours = ["host", "content-length", "x-request-id", "idempotency-key"]
    assert sorted(said) == sorted([*ours, *(name.lower() for name in sent)])


async def test_a_sane_request_id_is_kept_and_sent_on_as_idempotency_key() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        _, _, response = await world.post({"model": MODEL}, headers={"x-request-id": "abc-1"})
        assert response.headers["x-request-id"] == "abc-1"
        assert engine.received[0].header("x-request-id") == "abc-1"
        assert engine.received[0].header("idempotency-key") == "abc-1"
        _, _, response = await world.post({"model": MODEL}, headers={"x-request-id": "a b\u00e9" + "x" * 200})
        assert response.headers["x-request-id"].startswith("req-")
        _, _, response = await world.post({"model": MODEL}, headers={"Idempotency-Key": "mine"})
        assert engine.received[2].header("idempotency-key") == "mine"


async def test_connections_to_an_engine_are_used_again() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        for _ in range(5):
            await world.post({"model": MODEL})
    assert engine.connections == 1


async def test_a_client_of_http_1_0_gets_the_stream_without_chunks() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(stream(*EVENTS))
        reader, writer = await world.dial()
        body = b'{"model": "org/model"}'
        writer.write(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
        answer = await reader.read()
        writer.close()
    assert answer.endswith(b"\r\n\r\n" + b"".join(EVENTS))


async def test_an_answer_without_a_length_that_ends_with_its_connection_is_relayed_whole() -> None:
    async def until_close(turn: Turn) -> None:
        await turn.head("Content-Type: text/plain", "Connection: close")
        await turn.send(b"x" * 100_000)
        turn.close()

    async with World() as world:
        (engine,) = await world.simple()
        engine.script.append(until_close)
        status, answer, _ = await world.post({"model": MODEL})
    assert (status, len(answer)) == (200, 100_000)


async def test_a_large_body_crosses_both_ways_unchanged() -> None:
    large = json.dumps({"model": SERVED, "text": "\u00e9" * 2_000_000}, ensure_ascii=False).encode()

    async def echo(turn: Turn) -> None:
        await turn.head(f"Content-Length: {len(turn.received.body)}")
        await turn.send(turn.received.body)

    async with World() as world:
        engine = await world.engine(default=echo)
        world.serve(endpoint("a", engine.address), models=[ModelSpec(SERVED)])
        status, answer, _ = await world.post(large)
    assert status == 200
    assert answer == large


async def test_a_client_that_waits_to_be_told_to_send_its_body_is_told() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        reader, writer = await world.dial()
        body = b'{"model": "org/model"}'
        writer.write(raw_request(body, "Expect: 100-continue", "Connection: close")[: -len(body)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).endswith(JSON_ANSWER)
        writer.close()
        assert engine.received[0].header("expect") is None


async def test_requests_on_one_connection_are_answered_in_turn() -> None:
    async with World() as world:
        await world.simple()
        reader, writer = await world.dial()
        body = b'{"model": "org/model"}'
        writer.write(raw_request(body) + raw_request(body, "Connection: close"))
        assert (await reader.read()).count(JSON_ANSWER) == 2
        writer.close()
        await eventually(lambda: len(world.heard.ends) == 2, "two requests")
