import struct
from base64 import b64decode

import pytest
from aiohttp import ClientSession, HttpVersion10
from tests.sim.conftest import Connect
from tests.sim.wire import chat, data_events, numbered

CHAT = "/v1/chat/completions"


async def test_a_chat_completion_is_numbered_tokens_with_usage(connect: Connect) -> None:
    client = await connect()
    response = await client.post(CHAT, json=chat(5), headers={"x-request-id": "mine"})
    body = await response.json()
    assert response.headers["x-request-id"] == "mine"
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == numbered(5)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {
        "prompt_tokens": 8,
        "completion_tokens": 5,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_without_a_limit_an_answer_has_sixteen_tokens_and_stops_by_itself(connect: Connect) -> None:
    client = await connect()
    body = await (await client.post(CHAT, json=chat(None))).json()
    assert body["choices"][0]["message"]["content"] == numbered(16)
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_max_completion_tokens_wins_over_max_tokens(connect: Connect) -> None:
    client = await connect()
    body = await (await client.post(CHAT, json=chat(5, max_completion_tokens=2))).json()
    assert body["usage"]["completion_tokens"] == 2


async def test_a_repeated_prompt_reports_its_cached_tokens(connect: Connect) -> None:
    client = await connect()
    bodies = [await (await client.post(CHAT, json=chat(1, "x" * 400))).json() for _ in range(2)]
    assert [body["usage"]["prompt_tokens_details"]["cached_tokens"] for body in bodies] == [0, 96]


async def test_an_adapter_does_not_use_the_prefixes_of_its_model(connect: Connect) -> None:
    client = await connect()
    await (await client.post(CHAT, json=chat(1, "x" * 400))).read()
    body = await (await client.post(CHAT, json=chat(1, "x" * 400, model="finance-lora"))).json()
    assert body["model"] == "finance-lora"
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_chat_stream_is_role_tokens_finish_and_done(connect: Connect) -> None:
    client = await connect()
    response = await client.post(CHAT, json=chat(3, stream=True))
    *chunks, done = data_events(await response.text())
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "t0 "},
        {"content": "t1 "},
        {"content": "t2 "},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


async def test_usage_comes_last_in_a_stream_that_asks_for_it(connect: Connect) -> None:
    client = await connect()
    body = chat(2, stream=True, stream_options={"include_usage": True})
    *chunks, usage, _ = data_events(await (await client.post(CHAT, json=body)).text())
    assert usage["choices"] == []
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (8, 2)
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_a_completion_stream_is_text_and_done(connect: Connect) -> None:
    client = await connect()
    body = {"model": "alias", "prompt": "hello", "max_tokens": 2, "stream": True}
    *chunks, done = data_events(await (await client.post("/v1/completions", json=body)).text())
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["t0 ", "t1 ", ""]


async def test_token_ids_count_as_they_are(connect: Connect) -> None:
    client = await connect()
    body = {"model": "llama", "prompt": [1, 2, 3], "max_tokens": 1}
    answer = await (await client.post("/v1/completions", json=body)).json()
    assert answer["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "hello"}], [{"type": "image_url"}]])
async def test_message_content_may_be_parts_or_null(connect: Connect, content: object) -> None:
    client = await connect()
    assert (await client.post(CHAT, json=chat(1, content))).status == 200


async def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(connect: Connect) -> None:
    client = await connect()
    body = {"model": "llama", "input": ["one", "two", "one"], "dimensions": 8}
    answer = await (await client.post("/v1/embeddings", json=body)).json()
    one, two, again = (item["embedding"] for item in answer["data"])
    assert one == again != two
    assert sum(value * value for value in one) == pytest.approx(1)
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_base64_embeddings_hold_the_same_numbers(connect: Connect) -> None:
    client = await connect()
    body = {"model": "llama", "input": "one", "dimensions": 8}
    plain = await (await client.post("/v1/embeddings", json=body)).json()
    packed = await (await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
    values = struct.unpack("<8f", b64decode(packed["data"][0]["embedding"]))
    assert values == pytest.approx(plain["data"][0]["embedding"], rel=1e-6)


async def test_models_lists_names_and_adapters(connect: Connect) -> None:
    client = await connect()
    cards = (await (await client.get("/v1/models")).json())["data"]
    assert [(card["id"], card["parent"]) for card in cards] == [
        ("llama", None),
        ("alias", None),
        ("finance-lora", "llama"),
    ]


async def test_an_http_1_0_client_gets_a_stream_without_chunks(connect: Connect) -> None:
    client = await connect()
    async with (
        ClientSession(version=HttpVersion10) as session,
        session.post(client.make_url(CHAT), json=chat(3, stream=True)) as response,
    ):
        assert "Transfer-Encoding" not in response.headers
        assert data_events(await response.text())[-1] == "[DONE]"


async def test_a_connection_serves_one_request_after_the_other(connect: Connect) -> None:
    client = await connect()
    for count in (1, 2, 3):
        text = await (await client.post(CHAT, json=chat(count, stream=True))).text()
        assert len(data_events(text)) == count + 3
