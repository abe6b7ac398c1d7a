"""`/debug/pick` on the admin port: where a request would go, without going there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.http.world import MODEL, World, endpoint

from tailrace.core.model import PoolSettings
from tailrace.http.pickdoor import PICK_PATH


async def ask(world: World, query: str = "", body: object = None, **headers: str) -> tuple[int, Any]:
    _, port = await world.admin()
    url = f"http://127.0.0.1:{port}{PICK_PATH}{query}"
    data = None if body is None else json.dumps(body)
    async with world.session.request("POST" if data else "GET", url, data=data, headers=headers) as response:
        return response.status, json.loads(await response.read())


async def test_it_names_who_would_be_picked_and_picks_nobody() -> None:
    async with World() as world:
        world.serve(endpoint("pod-0", "10.0.0.7:8000"), replace(endpoint("pod-1", "10.0.0.8:8000"), ready=False))
        status, found = await ask(world, f"?model={MODEL}&tokens=7")
        assert (status, found["picked"], found["refusal"], found["tokens"]) == (200, "pod-0", None, 7)
        assert [(each["uid"], each["standing"]) for each in found["candidates"]] == [
            ("pod-0", "picked"),
            ("pod-1", "filtered"),
        ]
        assert found["candidates"][1]["against"] == ["it is starting"]
        assert world.router.in_flight() == 0


async def test_a_request_as_clients_send_it_is_read_as_the_proxy_reads_it() -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 100}
    async with World() as world:
        world.serve(endpoint("pod-0", "10.0.0.7:8000"), pool=PoolSettings("LeastEstimatedTTFT"))
        _, found = await ask(world, body=body)
        assert found["tokens"] == 1100
        assert found["candidates"][0]["parts"]["uncachedTokens"] == 1000
        assert found["strategy"] == "LeastEstimatedTTFT"


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_session_may_be_named_by_its_header_or_in_the_query(*, by_header: bool) -> None:
    async with World() as world:
        pods = [endpoint(f"pod-{n}", f"10.0.0.{n}:8000") for n in range(8)]
        world.serve(*pods, pool=PoolSettings("SessionAffinity"))
        homes = set()
        for number in range(12):
            session = f"chat-{number}"
            headers = {"x-session-id": session} if by_header else {}
            query = f"?model={MODEL}" + ("" if by_header else f"&session={session}")
            homes.add((await ask(world, query, **headers))[1]["picked"])
        assert len(homes) > 1


async def test_a_refusal_is_an_answer_with_the_words_that_a_client_would_get() -> None:
    async with World() as world:
        world.serve(endpoint("pod-0", "10.0.0.7:8000"))
        status, found = await ask(world, "?model=nobody")
        assert (status, found["picked"], found["refusal"]["code"]) == (200, None, "model_not_found")
        assert found["endpointsOfOtherModels"] == 1


async def test_without_a_model_it_says_how_to_name_one() -> None:
    async with World() as world:
        status, found = await ask(world)
        assert (status, found["error"]["code"]) == (400, "model_missing")
