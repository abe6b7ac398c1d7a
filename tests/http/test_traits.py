"""What the doors find out of a request for the strategy in use, and that they do not look for anybody else."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.http.engine import Behaviour, Turn, stream
from tests.http.test_routing import Asker
from tests.http.world import CHAT, MODEL, World, endpoint

from tailrace.core.model import Needs, Outcome, Pick, PoolSettings, Refusal, Request, Traits, Usage
from tailrace.http.traits import BLOCK_BYTES, MOST_BLOCKS, traits
from tailrace.http.usage import given_usage, read_usage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "text", "a"]), inner),
    max_leaves=12,
)


def found(document: dict[str, Any], needs: Needs, model: str = "m", **headers: str) -> Traits:
    return traits(document, headers, needs, model=model, image_tokens=1000, output_tokens=512)


def prefix(document: dict[str, Any], model: str = "m") -> int | None:
    return found(document, Needs(prefix=True), model).prefix


def chat(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


def test_only_what_is_needed_is_found_out() -> None:
    document = chat("x" * 40) | {"max_tokens": 7}
    assert found(document, Needs(), session="s") == Traits()
    assert found(document, Needs(lengths=True)) == Traits(prompt_tokens=10, output_tokens=7)
    assert found(document, Needs(session_header="x-id"), **{"x-id": "s"}) == Traits(session="s")
    assert found(document, Needs(session_header="x-id")) == Traits()


@pytest.mark.parametrize("told", ["J\udcf6rg", "ö", "x" * 30_000])
def test_a_session_that_is_long_or_no_text_is_known_by_a_short_name_of_its_own(told: str) -> None:
    one, same, other = (found({}, Needs(session_header="x-id"), **{"x-id": each}) for each in (told, told, told + "x"))
    assert one == same != other
    assert one.session.isascii()
    assert len(one.session) <= 128


def test_prompts_that_begin_alike_have_the_same_prefix() -> None:
    system = "You are a helpful assistant. " * 30
    assert prefix(chat(system, "one")) == prefix(chat(system, "two", "three"))
    assert prefix(chat(system, "one")) != prefix(chat("Z" + system[1:], "one"))
    assert prefix(chat("short")) == prefix(chat("short"))
    assert prefix(chat("short")) != prefix(chat("short", "longer"))
    assert prefix(chat("ab", "c")) != prefix(chat("a", "bc"))


def test_the_block_is_128_tokens_long() -> None:
    first = "a" * BLOCK_BYTES
    assert prefix({"prompt": first + "b"}) == prefix({"prompt": first + "c"})
    assert prefix({"prompt": first[: BLOCK_BYTES - 10] + "b" * 50}) != prefix({"prompt": first})
    assert prefix({"prompt": list(range(1000))}) == prefix({"prompt": [*range(500), 7]})
    assert prefix({"prompt": [1, 2]}) != prefix({"prompt": [12]})


def test_tokens_are_told_apart_wherever_they_stand() -> None:
    assert prefix({"prompt": [1, 2, 3]}) == prefix({"prompt": [1, 2, 3]})
    assert prefix({"prompt": [1, 2, 3]}) != prefix({"prompt": [1, 2, 4]})
    assert prefix({"prompt": [1, "2", 3]}) != prefix({"prompt": [1, "2", 4]})
    assert len(found({"prompt": list(range(200_000))}, Needs(chain=True)).chain) == MOST_BLOCKS


def test_models_and_adapters_share_no_prefix() -> None:
    assert prefix(chat("hello"), "m") != prefix(chat("hello"), "lora")


def test_pictures_are_told_apart() -> None:
    def picture(url: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}

    assert prefix(picture("a")) == prefix(picture("a"))
    assert prefix(picture("a")) != prefix(picture("b"))


def chain(document: dict[str, Any], model: str = "m") -> tuple[int, ...]:
    return found(document, Needs(chain=True), model).chain


def test_a_chain_has_a_hash_for_each_whole_block_and_grows_with_the_conversation() -> None:
    turns = ["x" * 700, "y" * 1000, "z" * 400]
    chains = [chain(chat(*turns[: n + 1])) for n in range(3)]
    assert [len(each) for each in chains] == [1, 3, 4]
    for shorter, longer in pairwise(chains):
        assert longer[: len(shorter)] == shorter
    assert chain(chat("x" * 700, "Y" + turns[1])) != chains[1]
    assert set(chain(chat(*turns), "lora")).isdisjoint(chains[2])
    assert chain({}) == chain(chat("short")) == ()


def test_a_chain_ends_at_a_length_that_nobody_needs_more_of() -> None:
    assert len(chain({"prompt": "x" * (MOST_BLOCKS + 10) * BLOCK_BYTES})) == MOST_BLOCKS


def test_a_picture_is_as_long_in_a_chain_as_its_tokens() -> None:
    def picture(url: str) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": url}}
        return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "t" * 700}]}]}

    one, other = chain(picture("data:" + "A" * 1_000_000)), chain(picture("data:" + "B" * 9))
    assert len(one) == len(other) == 1000 * 4 // BLOCK_BYTES + 2
    assert one[0] != other[0]
    assert chain({"messages": [{"content": [{"image_url": None}]}]}) != ()


def test_there_is_no_prefix_without_a_prompt() -> None:
    assert prefix({}) is prefix({"messages": []}) is prefix({"prompt": None}) is None


def test_a_prefix_is_the_same_in_every_process_and_version() -> None:
    assert prefix(chat("hello")) == 12820943056668891378


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "system"]), JSON))
def test_no_document_breaks_it(document: dict[str, Any]) -> None:
    found(document, Needs(lengths=True, prefix=True, chain=True))


def test_a_deep_or_large_document_is_read_no_further_than_needed() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    assert prefix({"prompt": deep}) is None
    assert prefix({"prompt": "x" * 10_000_000}) == prefix({"prompt": "x" * BLOCK_BYTES})


@pytest.mark.parametrize(
    ("end", "usage"),
    [
        (b'"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}', Usage(12, 3)),
        (b'data: {"usage": {"prompt_tokens": 12, "completion_tokens": 3}}\n\ndata: [DONE]\n\n', Usage(12, 3)),
        (b'"usage":{"input_tokens":5,"output_tokens":2}', Usage(5, 2)),
        (
            b'"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}',
            Usage(9, 3, 8),
        ),
        (b'"usage":{"prompt_tokens":5}', Usage(5, None)),
        (b"data: [DONE]\n\n", None),
        (b'"content":"\\"prompt_tokens\\": 9"', None),
        (b'"prompt_tokens":99999999999999', None),
        (b"", None),
    ],
)
def test_the_usage_is_read_from_the_end_of_an_answer(end: bytes, usage: Usage | None) -> None:
    assert read_usage(end) == usage


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 2}}, Usage(5, 2)),
        ({"usage": {"input_tokens": 5}}, Usage(5, None)),
        ({"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}}, Usage(5, None, 4)),
        ({"usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}}, Usage(5, None, 4)),
        ({"usage": {"prompt_tokens": 5, "prompt_tokens_details": [4]}}, Usage(5)),
        ({"usage": {"prompt_tokens": "5", "completion_tokens": -1}}, Usage()),
        ({"usage": 5}, None),
        ({}, None),
    ],
)
def test_the_usage_may_be_given_with_a_completion(document: dict[str, Any], usage: Usage | None) -> None:
    assert given_usage(document) == usage


@dataclass
class Asked:
    """What a world's router was asked and told."""

    requests: list[Request] = field(default_factory=list)
    usages: list[Usage | None] = field(default_factory=list)


def listen(world: World, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Note what the doors say to the router."""
    asked = Asked()
    acquire, release = world.router.acquire, world.router.release

    def acquired(request: Request, now: float) -> Pick | Refusal:
        asked.requests.append(request)
        return acquire(request, now)

    def released(attempt: str, outcome: Outcome, now: float, usage: Usage | None = None) -> bool:
        asked.usages.append(usage)
        return release(attempt, outcome, now, usage)

    monkeypatch.setattr(world.router, "acquire", acquired)
    monkeypatch.setattr(world.router, "release", released)
    return asked


async def answer_usage(turn: Turn) -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":4}}'
    await turn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def relayed(
    world: World, monkeypatch: pytest.MonkeyPatch, strategy: str, engine: Behaviour = answer_usage
) -> Asked:
    """Relay one chat request with a session under that strategy."""
    served = await world.engine(engine)
    world.serve(endpoint("pod-0", served.address), pool=PoolSettings(strategy))
    asked = listen(world, monkeypatch)
    document = chat("x" * 40) | {"model": MODEL, "max_tokens": 7, "stream": engine is not answer_usage}
    url = f"http://127.0.0.1:{world.proxy_port}{CHAT}"
    async with world.session.post(url, data=json.dumps(document), headers={"x-session-id": "s"}) as response:
        assert response.status == 200
        await response.read()
    return asked


@pytest.mark.parametrize(
    ("strategy", "expected", "usage"),
    [
        ("WeightedLeastConnections", None, None),
        ("WeightedResponseTime", None, None),
        ("LeastTokens", Traits(10, 7), Usage(30, 4)),
        ("ShortestExpectedCompletion", Traits(10, 7), Usage(30, 4)),
        ("SessionAffinity", Traits(session="s"), None),
        ("PrefixCache", Traits(prefix=prefix(chat("x" * 40), MODEL)), None),
    ],
)
async def test_the_proxy_finds_out_what_the_strategy_needs(
    monkeypatch: pytest.MonkeyPatch, strategy: str, expected: Traits | None, usage: Usage | None
) -> None:
    async with World() as world:
        asked = await relayed(world, monkeypatch, strategy)
        assert [request.traits for request in asked.requests] == [expected]
        assert asked.usages == [usage]


@pytest.mark.parametrize("status", [200, 500])
async def test_the_core_is_told_of_first_bytes_and_whether_they_are_an_answer(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async def answer(turn: Turn) -> None:
        await turn.send(b"HTTP/1.1 %d Said\r\nContent-Length: 2\r\n\r\n{}" % status)

    async with World() as world:
        served = await world.engine(answer)
        world.serve(endpoint("pod-0", served.address), pool=PoolSettings("LeastEstimatedTTFT"))
        told: list[bool] = []
        monkeypatch.setattr(world.router, "first_byte", lambda *_, ok: told.append(ok))
        asked = listen(world, monkeypatch)
        document = chat("x" * 2000) | {"model": MODEL, "stream": True}
        url = f"http://127.0.0.1:{world.proxy_port}{CHAT}"
        async with world.session.post(url, data=json.dumps(document)) as response:
            await response.read()
        assert told == [status == 200]
        (request,) = asked.requests
        assert request.traits == Traits(500, 0, chain=chain(chat("x" * 2000), MODEL), streams=True)


async def test_the_usage_of_a_stream_stands_in_one_of_its_last_events(monkeypatch: pytest.MonkeyPatch) -> None:
    events = (b'data: {"choices":[]}\n\n', b'data: {"usage":{"completion_tokens":9}}\n\n', b"data: [DONE]\n\n")
    async with World() as world:
        asked = await relayed(world, monkeypatch, "LeastTokens", stream(*events, pause=0.01))
        assert asked.usages == [Usage(None, 9)]


async def test_the_routing_door_finds_it_out_too_and_is_told_the_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        world.serve(endpoint("pod-0", "10.0.0.7:8000"), pool=PoolSettings("LeastTokens"))
        ask = Asker(world, await world.routing_port())
        asked = listen(world, monkeypatch)
        for body, headers in ((chat("x" * 40) | {"max_tokens": 7}, {}), (None, {"x-tailrace-tokens": "90"})):
            status, answer, _ = await ask(body=body, headers={"x-tailrace-model": MODEL, **headers})
            assert status == 200
            usage = {"usage": {"prompt_tokens": 11, "completion_tokens": 2}}
            status, _, _ = await ask(f"/complete/{answer['request']}", body=usage)
            assert status == 200
        assert [request.traits for request in asked.requests] == [Traits(10, 7), Traits(90, 0)]
        assert asked.usages == [Usage(11, 2), Usage(11, 2)]
