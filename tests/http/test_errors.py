"""Every error of the proxy: its status, OpenAI's shape, and what to do next."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from http import HTTPStatus

import openai
import pytest
from aiohttp.resolver import DefaultResolver
from openai.types.chat import ChatCompletionMessageParam
from tests.http.engine import Turn, stay_silent, stream
from tests.http.world import ALIAS, CHAT, MODEL, World, endpoint, eventually, raw_request

from tailrace.core.exchange import VERDICTS, Verdict
from tailrace.core.model import (
    EndpointSeen,
    ModelSpec,
    PoolSettings,
    Refusal,
    RefusalCode,
    ServerSeen,
    ServerSpec,
    Timeouts,
)
from tailrace.http.errors import failed, refused
from tailrace.settings import Settings

PLAIN = {"model": MODEL}
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "?"}]
CHUNK = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"t%d "}}]}\n\n'
)


def error(answer: bytes) -> dict[str, str | None]:
    document = json.loads(answer)
    assert list(document) == ["error"]
    assert set(document["error"]) == {"message", "type", "param", "code"}
    found: dict[str, str | None] = document["error"]
    return found


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "body_malformed", None),
        (b"{", "body_malformed", None),
        (b"\xff", "body_malformed", None),
        (b"[" * 5000, "body_malformed", None),
        (b"[]", "body_not_object", None),
        (b'"model"', "body_not_object", None),
        (b"{}", "model_missing", "model"),
        (b'{"model": null}', "model_missing", "model"),
        (b'{"model": 3}', "model_invalid", "model"),
        (b'{"model": ""}', "model_invalid", "model"),
    ],
)
async def test_a_body_that_names_no_model_is_400(body: bytes, code: str, param: str | None) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        status, answer, response = await world.post(body)
        assert (status, error(answer)["code"], error(answer)["param"]) == (400, code, param)
        assert error(answer)["type"] == "invalid_request_error"
        assert response.headers["Content-Type"].startswith("application/json")
        assert response.headers["x-request-id"].startswith("req-")
        assert not engine.received
    assert world.heard.ends[0].code == code


async def test_an_unknown_model_is_404_and_no_label() -> None:
    async with World() as world:
        await world.simple()
        status, answer, _ = await world.post({"model": "nobody's"})
        assert (status, error(answer)["code"], error(answer)["param"]) == (404, "model_not_found", "model")
        assert "/v1/models" in str(error(answer)["message"])
    assert (world.heard.ends[0].model, world.heard.ends[0].code) == ("", "model_not_found")


async def test_a_name_as_long_as_no_model_has_one_is_not_said_whole() -> None:
    async with World() as world:
        await world.simple()
        headers = {"x-tailrace-namespace": "n" * 4000}
        status, answer, _ = await world.post({"model": "m" * 1_000_000}, headers=headers)
        assert (status, error(answer)["code"]) == (404, "model_not_found")
        assert len(answer) < 1000
        assert "the model 'mmm" in str(error(answer)["message"])


async def test_a_model_of_two_namespaces_is_400_until_one_is_named() -> None:
    async with World() as world:
        engine = await world.engine()
        other = await world.engine()
        world.serve(endpoint("a", engine.address))
        world.serve(endpoint("b", other.address), namespace="other")
        status, answer, _ = await world.post(PLAIN)
        assert (status, error(answer)["code"]) == (400, "model_ambiguous")
        assert "x-tailrace-namespace" in str(error(answer)["message"])
        status, _, response = await world.post(PLAIN, headers={"x-tailrace-namespace": "other"})
        assert (status, response.headers["x-gateway-destination-endpoint"]) == (200, other.address)
        status, _, _ = await world.post(PLAIN, headers={"x-tailrace-namespace": "nowhere"})
        assert status == 404


async def test_a_model_at_zero_replicas_is_503_and_may_be_asked_again() -> None:
    async with World() as world:
        world.serve()
        status, answer, response = await world.post(PLAIN)
        assert status == 503
        assert error(answer)["type"] == "service_unavailable_error"
        assert response.headers["x-tailrace-dropped-reason"] == "rejected-no-endpoints"
        assert int(response.headers["Retry-After"]) > 0


async def test_a_long_prompt_without_a_gpu_that_fits_is_503() -> None:
    async with World() as world:
        engine = await world.engine()
        spec = ServerSpec("team/srv", "team", (ModelSpec(MODEL),), pool=PoolSettings(long_prompt_tokens=10))
        world.router.apply(ServerSeen(spec), world.clock())
        small = replace(endpoint("a", engine.address), server="team/srv", gpu_memory_gb=24)
        world.router.apply(EndpointSeen(small), world.clock())
        status, answer, response = await world.post({**PLAIN, "prompt": "x" * 400}, "/v1/completions")
        assert status == 503
        assert response.headers["x-tailrace-dropped-reason"] == "rejected-no-qualified-endpoints"
        assert "80 GB" in str(error(answer)["message"])
        status, _, _ = await world.post({**PLAIN, "prompt": "x"}, "/v1/completions")
        assert status == 200


async def test_full_endpoints_are_429() -> None:
    async with World() as world:
        (engine,) = await world.simple(capacity=1)
        engine.script.append(stay_silent)
        _, writer = await world.dial()
        writer.write(raw_request(json.dumps(PLAIN).encode()))
        await eventually(lambda: len(engine.received) == 1, "not sent")
        status, answer, response = await world.post(PLAIN)
        assert (status, error(answer)["type"]) == (429, "rate_limit_error")
        assert response.headers["x-tailrace-dropped-reason"] == "rejected-saturated"
        assert int(response.headers["Retry-After"]) > 0
        writer.close()


async def test_a_body_above_the_limit_is_413_before_it_is_read() -> None:
    async with World(Settings(max_body_bytes=1000)) as world:
        (engine,) = await world.simple()
        reader, writer = await world.dial()
        writer.write(raw_request(b"x" * 1001)[:200])
        answer = await reader.readuntil(b"}}")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"TAILRACE_MAX_BODY_BYTES" in answer
        writer.close()
        assert not engine.received


async def test_a_body_of_unknown_length_above_the_limit_is_413() -> None:
    async with World(Settings(max_body_bytes=1000)) as world:
        await world.simple()
        reader, writer = await world.dial()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"190\r\n" + b"x" * 400 + b"\r\n")
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 413 ")
        writer.close()


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"[" + b"[]," * 500_001 + b"0]", id="lists"),
        pytest.param(b"[" + b"0," * 4_000_001 + b"0]", id="values"),
    ],
)
async def test_a_body_that_would_take_long_to_read_is_413(extra: bytes) -> None:
    async with World() as world:
        (engine,) = await world.simple()
        status, answer, _ = await world.post(b'{"model": "m", "prompt": "x", "more": ' + extra + b"}")
        assert (status, error(answer)["code"]) == (413, "body_too_complex")
        assert not engine.received


async def test_a_large_body_of_many_numbers_is_taken() -> None:
    async with World() as world:
        await world.simple()
        status, _, _ = await world.post(PLAIN | {"more": [7] * 100_000})
        assert status == 200
    assert gc.isenabled()


async def test_bodies_beyond_the_budget_are_503_and_the_budget_comes_back() -> None:
    async with World(Settings(body_budget_bytes=1000)) as world:
        (engine,) = await world.simple()
        engine.script.append(stay_silent)
        body = json.dumps({**PLAIN, "x": "x" * 700}).encode()
        _, writer = await world.dial()
        writer.write(raw_request(body))
        await eventually(lambda: len(engine.received) == 1, "not sent")
        status, answer, response = await world.post(body)
        assert (status, error(answer)["code"]) == (503, "body_budget_exhausted")
        assert response.headers["Retry-After"] == "1"
        writer.close()
        await world.audit()
        status, _, _ = await world.post(body)
        assert status == 200


async def test_a_body_is_given_back_once_its_answer_has_begun() -> None:
    async def begin(turn: Turn) -> None:
        await turn.stream_head()
        await turn.chunk(b"data: 1\n\n")
        await stay_silent(turn)

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = begin
        async with world.session.post(world.url(), json={**PLAIN, "stream": True}) as response:
            await response.content.readany()
            assert world.proxy._bodies.budget.used == 0


async def test_a_body_that_does_not_come_is_408() -> None:
    async with World(Settings(body_seconds=0.1)) as world:
        await world.simple()
        reader, writer = await world.dial()
        writer.write(raw_request(b"x" * 100)[:-50])
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_an_encoded_body_is_415() -> None:
    async with World() as world:
        await world.simple()
        status, answer, _ = await world.post(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
        assert (status, error(answer)["code"]) == (415, "body_encoded")


@pytest.mark.parametrize("path", ["/v1/images", "/v1", "/", "/v1/chat/completions/", "/healthz"])
async def test_an_unknown_path_is_404_and_says_what_there_is(path: str) -> None:
    async with World() as world:
        status, answer, response = await world.post(PLAIN, path)
        assert (status, error(answer)["code"]) == (404, "path_not_found")
        assert "/v1/chat/completions" in str(error(answer)["message"])
        assert response.headers["Server"] == "tailrace"


async def test_a_wrong_method_is_405_and_says_the_right_one() -> None:
    async with World() as world, world.session.get(world.url()) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert error(await response.read())["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "garbage",
    [
        b"what?\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % i for i in range(500)) + b"\r\n",
        b"GET / HTTP/1.1\r\nh: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400_in_json_without_what_was_sent(garbage: bytes) -> None:
    async with World() as world:
        reader, writer = await world.dial()
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        assert b"Server: tailrace" in head
        assert error(body)["code"] == "http_malformed"


async def test_what_the_client_is_known_by_is_not_logged_when_its_engine_breaks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def rubbish(turn: Turn) -> None:
        assert turn.received.header("authorization") == "Bearer sesame"
        await turn.send(b"HTTP/9 what?\r\n\r\n")

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = rubbish
        status, _, _ = await world.post(PLAIN, headers={"Authorization": "Bearer sesame"})
        assert status == 502
    assert "attempt failed: " in caplog.text
    assert "sesame" not in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1", "no such host:x", "model-server:8000"])
async def test_what_the_client_asks_with_is_not_logged_when_there_is_no_connection(
    address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(DefaultResolver, "resolve", never)
    async with World() as world:
        world.serve(endpoint("a", address), timeouts=Timeouts(connect=0.05))
        status, _, _ = await world.post(PLAIN, path=f"{CHAT}?key=sesame")
        assert status == 502
    assert f"attempt failed: connect: {address}: " in caplog.text
    assert "sesame" not in caplog.text


async def test_a_fault_of_our_own_is_500_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        await world.simple()
        world.proxy._reader = None  # type: ignore[assignment]
        status, answer, _ = await world.post(PLAIN)
        assert (status, error(answer)["code"]) == (500, "internal_error")
        assert b"Traceback" not in answer
        assert b"NoneType" not in answer
    assert "AttributeError" in caplog.text
    assert world.heard.ends[0].code == "internal_error"


async def test_a_fault_of_our_own_in_the_middle_of_an_attempt_leaves_nothing_in_flight() -> None:
    async with World() as world:
        await world.simple()
        world.proxy._means.upstream.post = None  # type: ignore[method-assign, assignment]
        status, _, _ = await world.post(PLAIN)
        assert status == 500
    assert world.router.status().outcomes["failed"] == 1


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_has_an_answer(code: RefusalCode) -> None:
    answer = refused(Refusal(code, "why", 7))
    assert 400 <= answer.status < 600
    assert answer.headers["Retry-After"] == "7"
    assert json.loads(answer.body())["error"]["code"] == code.value


@pytest.mark.parametrize("verdict", VERDICTS.values())
def test_every_verdict_has_an_answer_that_says_what_to_do(verdict: Verdict) -> None:
    answer = failed(verdict)
    assert answer.status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.SERVICE_UNAVAILABLE)
    assert answer.message.startswith(verdict.text + "; ")


# Models, and the official client


async def test_models_are_listed_with_their_namespaces() -> None:
    async with World() as world:
        world.serve()
        world.serve(namespace="other", models=[ModelSpec("a/b/c")])
        async with world.session.get(world.url("/v1/models")) as response:
            document = await response.json()
        assert document["object"] == "list"
        assert [(m["id"], m["owned_by"], m["object"]) for m in document["data"]] == [
            ("a/b/c", "other", "model"),
            (ALIAS, "team", "model"),
            ("lora", "team", "model"),
            (MODEL, "team", "model"),
        ]
        async with world.session.get(world.url("/v1/models"), headers={"x-tailrace-namespace": "other"}) as response:
            assert [m["id"] for m in (await response.json())["data"]] == ["a/b/c"]


async def test_one_model_is_found_by_a_name_with_slashes() -> None:
    async with World() as world:
        world.serve()
        for path in ("/v1/models/org/model", "/v1/models/org%2Fmodel"):
            async with world.session.get(world.url(path)) as response:
                assert (response.status, (await response.json())["id"]) == (200, MODEL)
        async with world.session.get(world.url("/v1/models/none")) as response:
            assert (response.status, error(await response.read())["code"]) == (404, "model_not_found")


def client(world: World) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=world.url("/v1"), api_key="k", max_retries=0)


async def test_the_openai_client_reads_a_stream() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = stream(*[CHUNK % i for i in range(5)], b"data: [DONE]\n\n", pause=0.01)
        async with client(world) as api:
            got = await api.chat.completions.create(model=ALIAS, messages=ASKED, stream=True)
            assert [chunk.choices[0].delta.content async for chunk in got] == [f"t{i} " for i in range(5)]
            assert [m.id async for m in api.models.list()] == [ALIAS, "lora", MODEL]
    assert world.heard.ends[0].itl is not None


async def test_the_openai_client_sees_a_broken_stream_as_an_error_with_words() -> None:
    async def break_off(turn: Turn) -> None:
        await turn.stream_head()
        await turn.chunk(CHUNK % 0)
        turn.close()

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = break_off
        async with client(world) as api:
            got = await api.chat.completions.create(model=ALIAS, messages=ASKED, stream=True)
            with pytest.raises(openai.APIError, match="broke off its answer"):
                _ = [chunk async for chunk in got]


async def test_the_openai_client_knows_our_errors() -> None:
    async with World() as world:
        world.serve()
        async with client(world) as api:
            with pytest.raises(openai.NotFoundError, match="nobody"):
                await api.embeddings.create(model="nobody", input="x")
            with pytest.raises(openai.InternalServerError, match="no endpoint"):
                await api.completions.create(model=MODEL, prompt="x")


async def test_the_answer_to_one_request_never_reaches_another() -> None:
    async def echo(turn: Turn) -> None:
        await asyncio.sleep(0.001 * (len(turn.received.body) % 7))
        await turn.head(f"Content-Length: {len(turn.received.body)}")
        await turn.send(turn.received.body)

    async with World() as world:
        for engine in await world.simple(count=3, capacity=50):
            engine.default = echo

        async def ask(number: int) -> None:
            body = json.dumps({"model": "lora", "n": number, "x": "x" * number}).encode()
            _, answer, _ = await world.post(body)
            assert answer == body

        await asyncio.gather(*(ask(number) for number in range(100)))
