"""At the drain deadline the attempts of an endpoint are cut: re-routed, or ended with a word."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from tests.http.engine import JSON_ANSWER, Behaviour, ScriptedEngine, Turn, answer_json, stay_silent
from tests.http.test_failures import EVENT, PLAIN, STREAM, terminal
from tests.http.world import World, endpoint, eventually

from tailrace.core.model import Deletion, EndpointSeen
from tailrace.http.carry import _Relayed


async def delete(world: World, engine: ScriptedEngine, *, left: float = 0.0) -> None:
    """Have the engine's pod deleted with that many seconds left until its deadline."""
    index = world.engines.index(engine)
    now = world.clock()
    spec = endpoint(f"pod-{index}", engine.address)
    gone = Deletion(started_at=now - 1.0, deadline=now + left)
    world.router.apply(EndpointSeen(replace(spec, server="team/srv", deletion=gone)), now)


async def cut_overdue(world: World) -> None:
    world.proxy.cut(world.router.overdue(world.clock()))


async def busy(world: World) -> ScriptedEngine:
    """Return the engine that has the one request in flight."""
    await eventually(lambda: any(e.received for e in world.engines), "no request sent")
    return next(e for e in world.engines if e.received)


async def head_only(turn: Turn) -> None:
    await turn.stream_head()
    await stay_silent(turn)


@pytest.mark.parametrize("silence", [stay_silent, head_only])
async def test_a_request_without_a_byte_sent_goes_to_another_endpoint(silence: Behaviour) -> None:
    async with World() as world:
        engines = await world.simple(count=2)
        for engine in engines:
            engine.default = silence
        posted = asyncio.create_task(world.post(STREAM))
        engine = await busy(world)
        await asyncio.sleep(0.05)
        for other in engines:
            other.default = answer_json
        await delete(world, engine)
        await cut_overdue(world)
        status, answer, _ = await posted
        assert (status, answer) == (200, JSON_ANSWER)
        await asyncio.wait_for(engine.left.wait(), 5)
    assert world.heard.retries == ["cut"]
    assert world.router.status().outcomes["rerouted"] == 1
    assert world.router.status().outcomes["cut"] == 0


async def test_a_request_that_has_nowhere_else_to_go_is_503_with_retry_after() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = stay_silent
        posted = asyncio.create_task(world.post(PLAIN))
        await busy(world)
        await delete(world, engine)
        await cut_overdue(world)
        status, answer, response = await posted
        assert (status, json.loads(answer)["error"]["code"]) == (503, "drain_deadline")
        assert response.headers["Retry-After"] == "1"


async def test_a_stream_ends_with_an_error_event_and_is_counted_as_cut() -> None:
    async def begin(turn: Turn) -> None:
        await turn.stream_head()
        await turn.chunk(EVENT)
        await stay_silent(turn)

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = begin
        async with world.session.post(world.url(), json=STREAM) as response:
            assert await response.content.readany() == EVENT
            await delete(world, engine)
            await cut_overdue(world)
            rest = await response.content.read()
        assert terminal(rest)["code"] == "drain_deadline"
        await asyncio.wait_for(engine.left.wait(), 5)
    assert world.router.status().outcomes["cut"] == 1


async def test_before_its_deadline_a_draining_endpoint_finishes_its_stream() -> None:
    go_on = asyncio.Event()

    async def wait_then_end(turn: Turn) -> None:
        await turn.stream_head()
        await turn.chunk(EVENT)
        await go_on.wait()
        await turn.chunk(EVENT)
        await turn.last_chunk()

    async with World() as world:
        (engine,) = await world.simple()
        engine.default = wait_then_end
        async with world.session.post(world.url(), json=STREAM) as response:
            await response.content.readany()
            await delete(world, engine, left=60.0)
            await cut_overdue(world)
            status, _, _ = await world.post(PLAIN)
            assert status == 503
            go_on.set()
            assert await response.content.read() == EVENT


async def test_cutting_what_is_not_in_flight_here_does_nothing() -> None:
    async with World() as world:
        await world.simple()
        world.proxy.cut(["test-99", "other-1"])
        status, _, _ = await world.post(PLAIN)
        assert status == 200


async def test_cutting_twice_ends_once() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = stay_silent
        posted = asyncio.create_task(world.post(PLAIN))
        await busy(world)
        await delete(world, engine)
        await cut_overdue(world)
        await cut_overdue(world)
        status, _, _ = await posted
        assert status == 503


# A router that stops


async def begin_and_go_on(turn: Turn) -> None:
    await turn.stream_head()
    await turn.chunk(EVENT)
    await stay_silent(turn)


async def test_closing_the_door_ends_streams_with_a_word_and_refuses_the_rest() -> None:
    async with World() as world:
        (engine,) = await world.simple()
        engine.default = begin_and_go_on
        async with world.session.post(world.url(), json=STREAM) as response:
            await response.content.readany()
            world.router.close()
            await world.proxy.close()
            error = terminal(await response.content.read())
        assert error["code"] == "shutting_down"
        assert "the router is stopping" in str(error["message"])
        await asyncio.wait_for(engine.left.wait(), 5)
        status, _, refused = await world.post(PLAIN)
        assert status == 503
        assert refused.headers["x-tailrace-dropped-reason"] == "rejected-shutting-down"
    assert [end.code for end in world.heard.ends] == ["shutting_down", "rejected-shutting-down"]
    assert world.router.status().outcomes["cut"] == 1


@pytest.mark.parametrize("body", [PLAIN, STREAM])
async def test_closing_the_door_sends_no_request_to_one_engine_after_the_other(body: object) -> None:
    async with World() as world:
        engines = await world.simple(count=5)
        for engine in engines:
            engine.default = stay_silent
        posted = [asyncio.create_task(world.post(body)) for _ in range(3)]
        await eventually(lambda: sum(len(engine.received) for engine in engines) == 3, "not sent")
        world.router.close()
        await world.proxy.close()
        answers = await asyncio.gather(*posted)
        assert [(status, json.loads(answer)["error"]["code"]) for status, answer, _ in answers] == [
            (503, "shutting_down")
        ] * 3
        assert [response.headers["Retry-After"] for _, _, response in answers] == ["1"] * 3
        assert sum(len(engine.received) for engine in engines) == 3
    assert world.heard.retries == []
    assert world.router.status().outcomes["rerouted"] == 0


async def test_closing_the_door_breaks_off_an_answer_whose_client_has_not_read_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(_Relayed, "write_eof", never)
    async with World() as world:
        await world.simple()
        posted = asyncio.create_task(world.post(PLAIN))
        await eventually(lambda: world.router.status().outcomes["completed"] == 1, "not relayed")
        world.router.close()
        await world.proxy.close()
        await asyncio.wait([posted], timeout=5)
        await world.audit()
    assert [end.code for end in world.heard.ends] == ["shutting_down"]


# Races


async def test_a_client_that_leaves_at_the_moment_of_the_cut_is_gone_and_nothing_is_re_routed() -> None:
    async with World() as world:
        engines = await world.simple(count=2)
        for engine in engines:
            engine.default = stay_silent
        posted = asyncio.create_task(world.post(STREAM))
        await busy(world)
        (carry,) = world.proxy._means.live.values()
        carry.cut()
        carry._task.cancel()
        await world.audit()
        posted.cancel()
        await asyncio.gather(posted, return_exceptions=True)
        assert sum(len(engine.received) for engine in engines) == 1
    assert world.router.status().outcomes["client-gone"] == 1
