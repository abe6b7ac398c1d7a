"""Requests at the proxy that wait for a slot, over real connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.http.engine import JSON_ANSWER, Behaviour, ScriptedEngine, Turn, answer_json, hang_up, stay_silent
from tests.http.test_errors import PLAIN, error
from tests.http.world import MODEL, World, endpoint, eventually, raw_request

from tailrace.core.model import Outcome, Pick, PoolSettings, Request, Timeouts

POOL = "team/org/model"


class Hold:
    """An engine does what it does when the test says so."""

    def __init__(self, then: Behaviour = answer_json) -> None:
        self.go = asyncio.Event()
        self._then = then

    async def __call__(self, turn: Turn) -> None:
        await self.go.wait()
        await self._then(turn)


async def one_slot(
    world: World, *script: Behaviour, size: int = 10, seconds: float = 30.0, count: int = 1
) -> list[ScriptedEngine]:
    """Have engines of one slot each, of which the first follows the script."""
    engines = [await world.engine() for _ in range(count)]
    engines[0].script.extend(script)
    pool = PoolSettings("WeightedLeastConnections", queue_size=size, queue_seconds=seconds)
    world.serve(*(endpoint(f"pod-{n}", each.address, 1) for n, each in enumerate(engines)), pool=pool)
    return engines


async def in_engine(engine: ScriptedEngine, count: int) -> None:
    await eventually(lambda: len(engine.received) == count, f"{count} requests at the engine")


async def waiting(world: World, count: int) -> None:
    wanted = {POOL: count} if count else {}
    await eventually(lambda: world.router.waiting() == wanted, f"{count} waiting")


async def test_a_request_waits_for_a_slot_and_is_answered() -> None:
    async with World() as world:
        hold = Hold()
        (engine,) = await one_slot(world, hold)
        first = asyncio.create_task(world.post(PLAIN))
        await in_engine(engine, 1)
        second = asyncio.create_task(world.post(PLAIN))
        await waiting(world, 1)
        assert len(engine.received) == 1, "nothing is sent while no slot is free"
        hold.go.set()
        for status, body, _ in (await first, await second):
            assert (status, body) == (200, JSON_ANSWER)
        ((model, outcome, seconds),) = world.heard.waits
        assert (model, outcome) == ("org/model", "picked")
        assert seconds > 0


async def test_many_requests_wait_and_each_is_answered_once() -> None:
    async with World() as world:
        (engine,) = await one_slot(world, size=40)
        answers = await asyncio.gather(*(world.post(PLAIN) for _ in range(40)))
        assert [status for status, _, _ in answers] == [200] * 40
        assert len(engine.received) == 40


async def test_a_request_that_has_waited_long_enough_is_429_and_says_when_to_come_again() -> None:
    async with World() as world:
        (engine,) = await one_slot(world, stay_silent, seconds=0.2)
        _, writer = await world.dial()
        writer.write(raw_request(json.dumps(PLAIN).encode()))
        await in_engine(engine, 1)
        status, answer, response = await world.post(PLAIN)
        assert (status, error(answer)["code"]) == (429, "rejected-ttl-expired")
        assert response.headers["x-tailrace-dropped-reason"] == "rejected-ttl-expired"
        assert int(response.headers["Retry-After"]) > 0
        assert world.heard.waits[0][1] == "expired"
        writer.close()


async def test_one_more_than_may_wait_is_429_at_once() -> None:
    async with World() as world:
        hold = Hold()
        (engine,) = await one_slot(world, hold, size=1)
        tasks = [asyncio.create_task(world.post(PLAIN))]
        await in_engine(engine, 1)
        tasks.append(asyncio.create_task(world.post(PLAIN)))
        await waiting(world, 1)
        status, answer, response = await world.post(PLAIN)
        assert (status, error(answer)["code"]) == (429, "rejected-saturated")
        assert "1 request waits" in str(error(answer)["message"])
        assert "Retry-After" in response.headers
        hold.go.set()
        assert [got[0] for got in await asyncio.gather(*tasks)] == [200, 200]


async def test_a_client_that_goes_leaves_the_queue_at_once() -> None:
    async with World() as world:
        hold = Hold()
        (engine,) = await one_slot(world, hold)
        first = asyncio.create_task(world.post(PLAIN))
        await in_engine(engine, 1)
        _, writer = await world.dial()
        writer.write(raw_request(json.dumps(PLAIN).encode()))
        await waiting(world, 1)
        writer.close()
        await waiting(world, 0)
        assert world.heard.waits[0][1] == "client-gone"
        hold.go.set()
        assert (await first)[0] == 200
        assert len(engine.received) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_turn_and_a_client_that_goes_at_the_same_moment_lose_no_slot(moment: str) -> None:
    async with World() as world:
        hold = Hold()
        (engine,) = await one_slot(world, hold)
        first = asyncio.create_task(world.post(PLAIN))
        await in_engine(engine, 1)
        waits = asyncio.create_task(world.post(PLAIN))
        await waiting(world, 1)
        if moment == "before":
            waits.cancel()
        hold.go.set()
        if moment == "after":
            await first
            waits.cancel()
        await asyncio.gather(first, waits, return_exceptions=True)
        assert (await world.post(PLAIN))[0] == 200


async def test_a_request_whose_engine_broke_off_waits_for_another_one() -> None:
    async with World() as world:
        breaks, hold = Hold(hang_up), Hold()
        broken, other = await one_slot(world, breaks, count=2)
        other.script.append(hold)
        retried = asyncio.create_task(world.post(PLAIN))
        await in_engine(broken, 1)
        blocking = asyncio.create_task(world.post(PLAIN))
        await in_engine(other, 1)
        breaks.go.set()
        await waiting(world, 1)
        hold.go.set()
        assert [got[0] for got in await asyncio.gather(blocking, retried)] == [200, 200]
        assert world.heard.retries == ["no-response"]
        assert (len(broken.received), len(other.received)) == (1, 2)


async def test_what_only_the_clock_frees_is_given_to_who_waits() -> None:
    async with World() as world:
        (engine,) = await one_slot(world)
        lease = world.router.acquire(Request(MODEL, leased=True), world.clock() - Timeouts().total + 0.2)
        assert isinstance(lease, Pick)
        assert (await world.post(PLAIN))[0] == 200
        assert world.heard.waits[0][1] == "picked"
        assert len(engine.received) == 1


async def test_a_tick_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        (engine,) = await one_slot(world)
        lease = world.router.acquire(Request(MODEL, leased=True), world.clock() - Timeouts().total + 0.3)
        assert isinstance(lease, Pick)
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        tick, fails = world.router.tick, iter([True])

        def once(now: float) -> None:
            if next(fails, False):
                raise LookupError("a mistake")
            tick(now)

        monkeypatch.setattr(world.router, "tick", once)
        assert (await world.post(PLAIN))[0] == 200
        assert [type(each["exception"]) for each in told] == [LookupError]
        assert len(engine.received) == 1


async def test_a_replica_that_stops_answers_those_who_still_wait() -> None:
    async with World() as world:
        hold = Hold()
        (engine,) = await one_slot(world, hold)
        first = asyncio.create_task(world.post(PLAIN))
        await in_engine(engine, 1)
        second = asyncio.create_task(world.post(PLAIN))
        await waiting(world, 1)
        assert world.proxy.in_flight() == 2, "who waits is waited for"
        world.router.close()
        await world.proxy.close()
        assert (await first)[0] == 503
        status, answer, _ = await second
        assert (status, error(answer)["code"]) == (503, "rejected-shutting-down")


async def test_a_replica_that_ends_in_the_moment_of_a_turn_answers_that_too() -> None:
    async with World() as world:
        await one_slot(world)
        assert (await world.post(PLAIN))[0] == 200
        lease = world.router.acquire(Request(MODEL, leased=True), world.clock())
        assert isinstance(lease, Pick)
        waits = asyncio.create_task(world.post(PLAIN))
        await waiting(world, 1)
        world.router.close()
        world.router.release(lease.attempt, Outcome.COMPLETED, world.clock())
        assert world.router.waiting() == {}
        await world.proxy.close()
        status, answer, _ = await waits
        assert (status, error(answer)["code"]) == (503, "shutting_down")
        assert world.router.in_flight() == 0


async def test_bodies_that_wait_count_and_are_given_back() -> None:
    async with World() as world:
        hold = Hold()
        (engine,) = await one_slot(world, hold)
        first = asyncio.create_task(world.post(PLAIN))
        await in_engine(engine, 1)
        used = world.proxy._bodies.budget.used
        second = asyncio.create_task(world.post({**PLAIN, "prompt": "x" * 10_000}))
        await waiting(world, 1)
        assert world.proxy._bodies.budget.used > used + 10_000
        hold.go.set()
        await asyncio.gather(first, second)
