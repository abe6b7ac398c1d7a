from io import BytesIO

import pytest
from tests.sim.conftest import Connect
from tests.sim.wire import chat

MALFORMED: dict[str, tuple[str, object, str | None]] = {
    "model": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "model"),
    "no messages": ("/v1/chat/completions", {"model": "llama"}, "messages"),
    "empty messages": ("/v1/chat/completions", {"model": "llama", "messages": []}, "messages"),
    "message": ("/v1/chat/completions", {"model": "llama", "messages": ["x"]}, "messages[0]"),
    "content": ("/v1/chat/completions", chat(content=5), "messages[0].content"),
    "max_tokens 0": ("/v1/chat/completions", chat(max_tokens=0), "max_tokens"),
    "max_tokens text": ("/v1/chat/completions", chat(max_tokens=True), "max_tokens"),
    "stream": ("/v1/chat/completions", chat(stream="yes"), "stream"),
    "n": ("/v1/chat/completions", chat(n=2), "n"),
    "options alone": ("/v1/chat/completions", chat(stream_options={"include_usage": True}), "stream_options"),
    "options": ("/v1/chat/completions", chat(stream=True, stream_options=1), "stream_options"),
    "too large": ("/v1/chat/completions", chat(content="x" * 20_000), None),
    "not an object": ("/v1/chat/completions", [1], None),
    "prompt": ("/v1/completions", {"model": "llama", "prompt": 7}, "prompt"),
    "prompts": ("/v1/completions", {"model": "llama", "prompt": ["a", "b"]}, "prompt"),
    "mixed prompt": ("/v1/completions", {"model": "llama", "prompt": ["a", 1]}, "prompt[1]"),
    "token id": ("/v1/completions", {"model": "llama", "prompt": [-1]}, "prompt"),
    "input": ("/v1/responses", {"model": "llama", "input": []}, "input"),
    "embedding": ("/v1/embeddings", {"model": "llama"}, "input"),
    "encoding": ("/v1/embeddings", {"model": "llama", "input": "a", "encoding_format": []}, "encoding_format"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param"), MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_is_400_and_names_the_field(
    connect: Connect, path: str, body: object, param: str | None
) -> None:
    client = await connect()
    response = await client.post(path, json=body)
    error = (await response.json())["error"]
    assert (response.status, error["type"], error["code"]) == (400, "BadRequestError", 400)
    assert error["param"] == param
    assert param is None or param in error["message"]


async def test_a_body_that_is_not_json_is_400(connect: Connect) -> None:
    client = await connect()
    response = await client.post("/v1/chat/completions", data=b"{")
    assert response.status == 400
    assert "not valid JSON" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"])
async def test_an_unknown_model_is_404_in_openai_form(connect: Connect, path: str) -> None:
    client = await connect()
    response = await client.post(path, json=chat(model="gpt-9", prompt="x", input="x"))
    assert response.status == 404
    assert (await response.json())["error"] == {
        "message": "The model `gpt-9` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2", 404), ("GET", "/v1/completions", 405)])
async def test_the_frameworks_own_errors_have_openai_form(
    connect: Connect, method: str, path: str, status: int
) -> None:
    client = await connect()
    response = await client.request(method, path)
    assert response.status == status
    assert (await response.json())["error"]["code"] == status


async def test_a_body_over_the_limit_is_413(connect: Connect) -> None:
    client = await connect()
    response = await client.post("/v1/completions", data=BytesIO(b"x" * (33 * 1024 * 1024)))
    assert response.status == 413


async def test_while_the_model_loads_the_port_answers_503_everywhere(connect: Connect) -> None:
    client = await connect(startup_seconds=60.0)
    assert (await client.get("/health")).status == 503
    assert (await client.get("/v1/models")).status == 503
    assert (await client.post("/v1/chat/completions", json=chat())).status == 503
    assert (await client.get("/metrics")).status == 200


async def test_faults_are_not_served_unless_asked_for(connect: Connect) -> None:
    client = await connect(faults=False)
    assert (await client.post("/faults", json={"hang": True})).status == 404
