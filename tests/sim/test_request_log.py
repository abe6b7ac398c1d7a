import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.sim.conftest import Client, Connect
from tests.sim.wire import chat, eventually, metric

from tailrace.sim.request_log import RequestLog

CHAT = "/v1/chat/completions"
Line = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def lines(path: Path, *events: str) -> list[Line]:
    written = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in written if not events or line["event"] in events]


async def running(client: Client) -> float:
    return metric(await (await client.get("/metrics")).text(), "vllm:num_requests_running")


async def test_every_request_has_one_start_and_one_end_that_agree_with_its_client(connect: Connect, path: Path) -> None:
    client = await connect(RequestLog(path))

    async def ask(number: int) -> tuple[str, int]:
        body = chat(number + 1, stream=number % 2 == 0)
        response = await client.post(CHAT, json=body, headers={"x-request-id": f"r{number}"})
        text = await response.text()
        return f"r{number}", sum(f"t{index} " in text for index in range(50))

    received = dict(await asyncio.gather(*map(ask, range(40))))
    starts, ends = lines(path, "start"), lines(path, "end")
    assert sorted(line["request_id"] for line in starts) == sorted(received)
    assert {line["request_id"]: line["tokens_sent"] for line in ends} == received
    assert {line["outcome"] for line in ends} == {"finished"}
    assert all(line["time"] > 1e9 for line in starts + ends)


async def test_an_end_tells_model_tokens_and_cache(connect: Connect, path: Path) -> None:
    client = await connect(RequestLog(path))
    for _ in range(2):
        await (await client.post(CHAT, json=chat(3, "x" * 400, model="finance-lora"))).read()
    end = lines(path, "end")[-1]
    facts = {key: end[key] for key in ("model", "prompt_tokens", "cached_tokens", "max_tokens", "tokens_sent")}
    assert facts == {
        "model": "finance-lora",
        "prompt_tokens": 106,
        "cached_tokens": 96,
        "max_tokens": 3,
        "tokens_sent": 3,
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot_and_is_booked_as_gone(
    connect: Connect, path: Path, *, stream: bool
) -> None:
    client = await connect(RequestLog(path))
    request = asyncio.create_task(client.post(CHAT, json=chat(3000, stream=stream)))
    await eventually(lambda: path.exists() and bool(lines(path, "start")))
    if stream:
        (await request).close()
    else:
        request.cancel()
    await eventually(lambda: bool(lines(path, "end")))
    (end,) = lines(path, "end")
    assert end["outcome"] == "client-gone"
    assert end["tokens_sent"] < 3000
    assert await running(client) == 0


async def test_a_client_that_leaves_the_queue_is_gone_too(connect: Connect, path: Path) -> None:
    client = await connect(RequestLog(path))
    await client.post("/faults", json={"hang": True})
    requests = [await client.post(CHAT, json=chat(5, stream=True)) for _ in range(33)]
    requests[-1].close()
    await eventually(lambda: bool(lines(path, "end")))
    assert lines(path, "end")[0]["tokens_sent"] == 0
    assert "vllm:num_requests_waiting{" in (text := await (await client.get("/metrics")).text())
    assert metric(text, "vllm:num_requests_waiting") == 0


async def test_a_refused_request_is_logged_with_its_status(connect: Connect, path: Path) -> None:
    client = await connect(RequestLog(path))
    await client.post(CHAT, json=chat(model="gpt-9"), headers={"x-request-id": "lost"})
    (line,) = lines(path)
    assert (line["event"], line["request_id"], line["status"]) == ("refused", "lost", 404)


def test_two_logs_append_to_one_file(path: Path) -> None:
    logs = [RequestLog(path), RequestLog(path)]
    for number, log in enumerate(logs):
        log.write("start", request_id=str(number))
        log.close()
    assert [line["request_id"] for line in lines(path)] == ["0", "1"]
