"""The routing door: where to send a request, and the lease that comes with the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from tests.http.world import ALIAS, MODEL, World, endpoint

from tailrace.core.model import Outcome, Pick, Refusal, Request, Timeouts

ADDRESS = "10.0.0.7:8000"


class Asker:
    """Speaks to the routing door of a world."""

    def __init__(self, world: World, port: int) -> None:
        self._world = world
        self._base = f"http://127.0.0.1:{port}"

    async def __call__(
        self,
        path: str = "/route",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        body: object = None,
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        data = None if body is None else json.dumps(body)
        async with self._world.session.request(method, self._base + path, headers=headers, data=data) as response:
            return response.status, json.loads(await response.read()), response


async def asker(world: World, *, timeouts: Timeouts | None = None, capacity: int = 8) -> Asker:
    world.serve(endpoint("pod-0", ADDRESS, capacity), timeouts=timeouts)
    return Asker(world, await world.routing_port())


async def finish(world: World, ask: Asker, request: str) -> None:
    status, _, _ = await ask(f"/complete/{request}")
    assert status == 200
    assert world.router.in_flight() == 0


@pytest.mark.parametrize(
    ("path", "method", "headers", "body"),
    [
        ("/route", "GET", {"x-tailrace-model": MODEL}, None),
        ("/route", "POST", {"x-tailrace-model": MODEL, "x-tailrace-tokens": "100"}, None),
        (f"/route?model={MODEL}", "GET", None, None),
        (f"/route?model={MODEL}&tokens=7&namespace=team", "POST", None, None),
        ("/route", "POST", None, {"model": MODEL, "tokens": 100}),
        ("/route", "POST", None, {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}),
        ("/route?model=lora", "POST", {"x-tailrace-model": MODEL}, {"model": "nobody"}),
    ],
)
async def test_a_route_is_asked_for_by_header_query_or_body(
    path: str, method: str, headers: dict[str, str] | None, body: object
) -> None:
    async with World() as world:
        ask = await asker(world)
        status, answer, response = await ask(path, method=method, headers=headers, body=body)
        assert status == 200
        assert answer["endpoint"] == response.headers["x-gateway-destination-endpoint"] == ADDRESS
        assert answer["request"] == response.headers["x-tailrace-request"]
        assert answer["expiresSeconds"] == int(response.headers["x-tailrace-expires-seconds"])
        assert 598 <= answer["expiresSeconds"] <= 600
        assert world.router.in_flight() == 1
        await finish(world, ask, answer["request"])
    assert [(e.door, e.code) for e in world.heard.ends] == [("route", "")]


async def test_the_engines_name_of_the_model_is_told_when_it_differs() -> None:
    async with World() as world:
        ask = await asker(world)
        _, answer, response = await ask(body={"model": ALIAS})
        assert answer["model"] == response.headers["x-tailrace-served-model"] == "served"
        await finish(world, ask, answer["request"])
        _, answer, response = await ask(body={"model": "lora"})
        assert "model" not in answer
        assert "x-tailrace-served-model" not in response.headers
        await finish(world, ask, answer["request"])


async def test_tokens_are_estimated_from_an_openai_body_and_taken_when_said() -> None:
    asked: list[Request] = []
    async with World() as world:
        ask = await asker(world)
        acquire = world.router.acquire

        def note(request: Request, now: float) -> Pick | Refusal:
            asked.append(request)
            return acquire(request, now)

        world.router.acquire = note  # type: ignore[method-assign]
        for facts in ({"prompt": "x" * 400}, {"prompt": "x" * 400, "tokens": 7}, {"tokens": 0}):
            _, answer, _ = await ask(body={"model": MODEL, **facts})
            await finish(world, ask, answer["request"])
    assert [request.tokens for request in asked] == [100, 7, 1]
    assert all(request.leased for request in asked)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ({}, None, 400, "model_missing"),
        ({"model": 3}, None, 400, "model_missing"),
        ({"model": MODEL, "tokens": "many"}, None, 400, "tokens_invalid"),
        ({"model": MODEL, "tokens": -1}, None, 400, "tokens_invalid"),
        ({"model": MODEL}, {"x-tailrace-tokens": "1e3"}, 400, "tokens_invalid"),
        ({"model": "nobody"}, None, 404, "model_not_found"),
        ({"model": MODEL}, {"x-tailrace-namespace": "nowhere"}, 404, "model_not_found"),
        ([], None, 400, "body_not_object"),
    ],
)
async def test_a_question_that_cannot_be_answered_says_why(
    body: object, headers: dict[str, str] | None, status: int, code: str
) -> None:
    async with World() as world:
        ask = await asker(world)
        got, answer, _ = await ask(body=body, headers=headers)
        assert (got, answer["error"]["code"]) == (status, code)
    assert world.heard.ends[0].code == code


async def test_a_full_endpoint_is_429_until_a_lease_is_completed() -> None:
    async with World() as world:
        ask = await asker(world, capacity=1)
        _, first, _ = await ask(body={"model": MODEL})
        status, _, response = await ask(body={"model": MODEL})
        assert status == 429
        assert response.headers["x-tailrace-dropped-reason"] == "rejected-saturated"
        assert "Retry-After" in response.headers
        await finish(world, ask, first["request"])
        status, again, _ = await ask(body={"model": MODEL})
        assert status == 200
        await finish(world, ask, again["request"])


@pytest.mark.parametrize("outcome", [None, "completed", "failed", "client-gone"])
async def test_a_lease_is_completed_with_its_outcome_and_twice_is_no_error(outcome: str | None) -> None:
    async with World() as world:
        ask = await asker(world)
        _, answer, _ = await ask(body={"model": MODEL})
        body = None if outcome is None else {"outcome": outcome}
        path = f"/complete/{answer['request']}"
        assert [(await ask(path, body=body))[1]["completed"] for _ in range(2)] == ["done", "already"]
    assert world.router.status().outcomes[outcome or "completed"] == 1


async def test_a_lease_that_nobody_gave_cannot_be_completed_or_renewed() -> None:
    async with World() as world:
        ask = await asker(world)
        for path in ("/complete/other-1", "/renew/other-1"):
            status, answer, _ = await ask(path)
            assert (status, answer["error"]["code"]) == (404, "request_not_found")


async def test_a_request_of_the_proxy_cannot_be_completed_by_who_guesses_its_id() -> None:
    async with World() as world:
        ask = await asker(world)
        pick = world.router.acquire(Request(MODEL), world.clock())
        assert isinstance(pick, Pick)
        status, answer, _ = await ask(f"/complete/{pick.attempt}")
        assert (status, answer["error"]["code"]) == (404, "request_not_found")
        assert world.router.in_flight() == 1
        world.router.release(pick.attempt, Outcome.COMPLETED, world.clock())


async def test_an_outcome_that_is_none_is_400_and_the_lease_lives_on() -> None:
    async with World() as world:
        ask = await asker(world)
        _, answer, _ = await ask(body={"model": MODEL})
        status, refused, _ = await ask(f"/complete/{answer['request']}", body={"outcome": "lost"})
        assert (status, refused["error"]["code"]) == (400, "outcome_invalid")
        assert world.router.in_flight() == 1
        await finish(world, ask, answer["request"])


async def test_a_lease_ends_by_itself_and_is_kept_by_renewing() -> None:
    async with World() as world:
        ask = await asker(world, timeouts=Timeouts(total=100.0))
        ahead, clock = [0.0], world.clock
        shifted: Callable[[], float] = lambda: clock() + ahead[0]  # noqa: E731
        world.clock = shifted
        ask = Asker(world, await world.routing_port())
        _, kept, _ = await ask(body={"model": MODEL})
        _, left, _ = await ask(body={"model": MODEL})
        ahead[0] = 60.0
        status, renewed, _ = await ask(f"/renew/{kept['request']}")
        assert (status, renewed["request"]) == (200, kept["request"])
        assert 98 <= renewed["expiresSeconds"] <= 100
        ahead[0] = 120.0
        assert (await ask(f"/renew/{left['request']}"))[0] == 404
        assert (await ask(f"/complete/{left['request']}"))[1]["completed"] == "already"
        await finish(world, ask, kept["request"])


async def test_other_paths_and_methods_are_refused_in_json() -> None:
    async with World() as world:
        ask = await asker(world)
        assert (await ask("/nothing"))[0] == 404
        status, answer, response = await ask("/complete/x", method="GET")
        assert (status, answer["error"]["code"], response.headers["Allow"]) == (405, "method_not_allowed", "POST")


@pytest.mark.parametrize(
    ("subset", "answer"),
    [
        ("10.0.0.8:8000, 10.0.0.9:1", "10.0.0.8:8000"),
        (f" {ADDRESS} ", ADDRESS),
        (f"10.0.0.8:8000,{ADDRESS}", ADDRESS),
        ("10.0.0.9:1", None),
        ("", None),
    ],
)
async def test_what_a_gateway_allows_is_kept_to_and_never_left(subset: str, answer: str | None) -> None:
    async with World() as world:
        world.serve(endpoint("pod-0", ADDRESS), endpoint("pod-1", "10.0.0.8:8000"))
        ask = Asker(world, await world.routing_port())
        headers = {"x-tailrace-model": MODEL, "x-gateway-destination-endpoint-subset": subset}
        status, said, _ = await ask(headers=headers)
        assert (status, said.get("endpoint")) == ((200, answer) if answer else (503, None))
        if answer:
            await finish(world, ask, said["request"])
