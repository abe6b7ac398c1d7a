"""The path of the first thirty seconds, with real processes and the official client."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from tests.app.programs import Serve, documents, model_server, serving, tailrace
from tests.app.waiting import eventually

ITL_MS = "10"
LONG = 250
"""Tokens of a stream that lasts a few seconds."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Yield the addresses of two model servers, the same for all tests of this file."""
    folder = tmp_path_factory.mktemp("engines")
    with (
        model_server(folder / "a.log", "--itl-ms", ITL_MS) as first,
        model_server(folder / "b.log", "--itl-ms", ITL_MS) as second,
    ):
        yield first, second


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "servers.yaml"


@pytest.fixture
def serve(file: Path, tmp_path: Path, engines: tuple[str, str]) -> Iterator[Serve]:
    """Yield a running `tailrace serve` in front of the first engine."""
    file.write_text(documents(engines[0]))
    with serving(file, tmp_path / "serve.log") as running:
        yield running


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"http://{serve.proxy}/v1", api_key="none", max_retries=0) as official:
        yield official


class Stream:
    """A streamed answer whose first token has come; `rest` collects it to its end."""

    def __init__(self, client: AsyncOpenAI, tokens: int) -> None:
        self._client = client
        self._tokens = tokens
        self._stream: AsyncStream[ChatCompletionChunk] | None = None
        self.text = ""
        self.endpoint = ""

    async def begin(self) -> "Stream":
        """Send the request and wait for the first token."""
        raw = await self._client.chat.completions.with_raw_response.create(
            model="demo", messages=[{"role": "user", "content": "hello"}], max_tokens=self._tokens, stream=True
        )
        self.endpoint = raw.headers["x-gateway-destination-endpoint"]
        self._stream = raw.parse()
        while not self.text:
            self._take(await anext(self._stream))
        return self

    async def rest(self) -> str:
        """Return the whole text."""
        assert self._stream is not None
        async for chunk in self._stream:
            self._take(chunk)
        return self.text

    def _take(self, chunk: ChatCompletionChunk) -> None:
        self.text += chunk.choices[0].delta.content or "" if chunk.choices else ""


def numbered(count: int) -> str:
    return "".join(f"t{index} " for index in range(count))


async def until_reloaded(serve: Serve, *addresses: str) -> None:
    await eventually(lambda: set(serve.endpoints()) == set(addresses))


async def test_the_official_client_streams_and_asks(
    client: AsyncOpenAI, serve: Serve, engines: tuple[str, str]
) -> None:
    stream = await Stream(client, 20).begin()
    assert await stream.rest() == numbered(20)
    assert stream.endpoint == engines[0]
    answer = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "hello"}], max_tokens=3
    )
    assert answer.choices[0].message.content == numbered(3)
    assert [model.id async for model in client.models.list()] == ["demo"]
    await eventually(lambda: serve.in_flight() == 0)


async def test_sigterm_lets_a_stream_finish_refuses_new_ones_and_exits_with_0(
    client: AsyncOpenAI, serve: Serve
) -> None:
    stream = await Stream(client, LONG).begin()
    assert serve.ready()
    serve.terminate()
    await eventually(lambda: "stopping: waits for 1 request, the oldest" in serve.log())
    assert not serve.ready()
    with pytest.raises(openai.APIConnectionError):
        await Stream(client, 3).begin()
    assert await stream.rest() == numbered(LONG)
    assert await asyncio.to_thread(serve.code) == 0


async def test_a_second_sigterm_ends_it_at_once_and_the_client_can_tell(client: AsyncOpenAI, serve: Serve) -> None:
    stream = await Stream(client, 5000).begin()
    serve.terminate()
    await eventually(lambda: "stopping" in serve.log())
    serve.terminate()
    with pytest.raises(openai.APIError):
        await stream.rest()
    assert len(stream.text.split()) < 5000
    assert await asyncio.to_thread(serve.code, 5) == 0
    assert "stopped; not waited for: 1 request, the oldest" in serve.log()


async def test_an_idle_serve_ends_at_once_with_idle_connections_open(client: AsyncOpenAI, serve: Serve) -> None:
    await Stream(client, 1).begin()
    serve.terminate()
    assert await asyncio.to_thread(serve.code, 5) == 0
    assert "stopping: waits for clients to turn elsewhere, " in serve.log()


async def test_a_stream_that_takes_too_long_is_ended_after_the_shutdown_time(
    file: Path, tmp_path: Path, engines: tuple[str, str]
) -> None:
    file.write_text(documents(engines[0]))
    with serving(file, tmp_path / "short.log", {"TAILRACE_SHUTDOWN_SECONDS": "0.3"}) as serve:
        async with AsyncOpenAI(base_url=f"http://{serve.proxy}/v1", api_key="none", max_retries=0) as client:
            stream = await Stream(client, 5000).begin()
            serve.terminate()
            with pytest.raises(openai.APIError):
                await stream.rest()
            assert await asyncio.to_thread(serve.code, 5) == 0


async def test_a_reload_adds_an_endpoint_while_a_stream_runs(
    client: AsyncOpenAI, serve: Serve, file: Path, engines: tuple[str, str]
) -> None:
    stream = await Stream(client, LONG).begin()
    file.write_text(documents(*engines))
    await until_reloaded(serve, *engines)
    second = await Stream(client, 3).begin()
    assert second.endpoint == engines[1], "least connections takes the idle one"
    assert await stream.rest() == numbered(LONG)
    assert await second.rest() == numbered(3)


async def test_an_endpoint_that_is_taken_out_finishes_its_stream_and_gets_no_new_one(
    client: AsyncOpenAI, serve: Serve, file: Path, engines: tuple[str, str]
) -> None:
    stream = await Stream(client, LONG).begin()
    assert stream.endpoint == engines[0]
    file.write_text(documents(engines[1]))
    await until_reloaded(serve, engines[1])
    others = [await Stream(client, 3).begin() for _ in range(3)]
    assert {other.endpoint for other in others} == {engines[1]}
    assert await stream.rest() == numbered(LONG)
    file.write_text(documents(engines[0]))
    await until_reloaded(serve, engines[0])
    assert (await Stream(client, 3).begin()).endpoint == engines[0]


async def test_a_bad_reload_is_told_and_the_last_good_version_serves_on(
    client: AsyncOpenAI, serve: Serve, file: Path
) -> None:
    file.write_text("kind: Service")
    await eventually(lambda: "not reloaded, the last good version serves on" in serve.log())
    assert await (await Stream(client, 3).begin()).rest() == numbered(3)
    assert serve.ready()


# status of a running serve


async def test_status_shows_the_endpoints_of_a_router(
    client: AsyncOpenAI, serve: Serve, engines: tuple[str, str]
) -> None:
    stream = await Stream(client, LONG).begin()
    code, table, _ = await asyncio.to_thread(tailrace, "status", "--admin", serve.admin)
    assert code == 0
    head, row = (line.split() for line in table.splitlines())
    shown = dict(zip(head, row, strict=True))
    assert (shown["SERVER"], shown["NAME"], shown["STATE"], shown["INFLIGHT"]) == (
        "default/demo",
        engines[0],
        "ready",
        "1",
    )
    await stream.rest()


def test_status_as_json_is_for_scripts_and_knows_namespaces(serve: Serve, engines: tuple[str, str]) -> None:
    code, text, _ = tailrace("status", "--json", env={"TAILRACE_ADMIN": f"http://{serve.admin}/"})
    (row,) = json.loads(text)
    assert code == 0
    assert (row["server"], row["address"], row["state"], row["inFlight"]) == ("default/demo", engines[0], "ready", 0)
    (same,) = json.loads(tailrace("status", "--json", "-n", "default", "--admin", serve.admin)[1])
    assert (same["server"], same["address"]) == (row["server"], row["address"])
    assert tailrace("status", "-n", "shop", "--admin", serve.admin)[1].startswith("nothing is served here yet")


# explaining picks of a running serve


def test_explain_shows_who_would_be_picked_and_why(serve: Serve, engines: tuple[str, str], tmp_path: Path) -> None:
    code, text, errors = tailrace("explain", "demo", "--prompt", "hello", "--admin", serve.admin)
    assert (code, errors) == (0, "")
    first, _, head, row = text.splitlines()
    assert first.startswith("model demo, about ")
    assert "pool default/demo, LeastEstimatedTTFT" in first
    assert head.split() == ["NAME", "ADDRESS", "STATE", "IN", "FLIGHT", "SCORE", "WHY"]
    assert row.split()[:4] == ["picked", engines[0], engines[0], "ready"]
    assert "prefillTokensPerSecond 8000 (a guess so far), " in row
    assert "speedGuessed" not in row
    whole = tmp_path / "request.json"
    whole.write_text(json.dumps({"prompt": "x" * 400, "max_tokens": 28}))
    code, text, _ = tailrace("explain", "demo", "-f", str(whole), "--json", env={"TAILRACE_ADMIN": serve.admin})
    assert (code, json.loads(text)["tokens"]) == (0, 128)


def test_an_endpoint_that_nobody_listens_at_shows_it_where_people_look(serve: Serve, file: Path) -> None:
    file.write_text(documents("127.0.0.1:1"))
    asyncio.run(until_reloaded(serve, "127.0.0.1:1"))
    request = urllib.request.Request(f"http://{serve.proxy}/v1/completions", b'{"model": "demo", "prompt": "hello"}')
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError, match="502"):
            urllib.request.urlopen(request, timeout=10)
    _, text, _ = tailrace("explain", "demo", "--admin", serve.admin)
    assert "no connection could be made 2 times in a row, " in text
    head, row = tailrace("status", "--admin", serve.admin)[1].splitlines()
    assert (head.split()[-2:], row.split()[-1]) == (["NO", "CONNECT"], "2")


def test_explain_of_a_model_that_nobody_serves_says_where_the_names_are(serve: Serve, file: Path) -> None:
    code, text, _ = tailrace("explain", "nosuch", "--admin", serve.admin)
    first, second, _, last = text.splitlines()
    assert (code, first, last) == (1, "model nosuch, about 1 token; no pool", "1 endpoint of other models only")
    assert second.startswith("nobody would be picked (model_not_found): no InferenceServer serves the model 'nosuch'; ")
    assert "/v1/models" in second


def test_explain_says_why_nobody_would_be_picked(serve: Serve) -> None:
    code, text, _ = tailrace("explain", "demo", "--tokens", "9000", "--admin", serve.admin)
    assert code == 1
    assert "nobody would be picked (rejected-no-qualified-endpoints): a request of about 9000 tokens" in text
    assert "GPU memory unknown; more than 4096 tokens need 80 GB" in text
    code, _, errors = tailrace("explain", "", "--admin", serve.admin)
    assert code == 2
    assert "answers 400: name the model" in errors
