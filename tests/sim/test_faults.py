import asyncio

import pytest
from aiohttp import ClientResponse
from tests.sim.conftest import QUICK, Client, Connect
from tests.sim.wire import chat, data_events, metric, numbered

from tailrace.sim.engine import Engine
from tailrace.sim.faults import Faults
from tailrace.sim.request_log import RequestLog
from tailrace.sim.service import Service

CHAT = "/v1/chat/completions"
PAUSE = 0.05


async def inflict(client: Client, **fault: object) -> ClientResponse:
    return await client.post("/faults", json=fault)


async def content(response: ClientResponse) -> str:
    events = data_events(await response.text())
    assert events[-1] == "[DONE]"
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])


async def silent(response: ClientResponse) -> bool:
    try:
        await asyncio.wait_for(response.content.readany(), PAUSE)
    except TimeoutError:
        return True
    return False


async def test_a_hung_engine_answers_no_health_check_and_sends_no_token_until_it_recovers(connect: Connect) -> None:
    client = await connect()
    await inflict(client, hang=True)
    health = asyncio.create_task(client.get("/health"))
    stream = await client.post(CHAT, json=chat(5, stream=True))
    assert await silent(stream)
    assert not health.done()
    await inflict(client, hang=False)
    assert (await health).status == 200
    assert await content(stream) == numbered(5)


async def test_a_stream_under_way_stalls_with_the_engine_and_loses_nothing(connect: Connect) -> None:
    client = await connect()
    await inflict(client, slow=100)
    stream = await client.post(CHAT, json=chat(100, stream=True))
    await stream.content.readline()
    await inflict(client, hang=True)
    before = metric(await (await client.get("/metrics")).text(), "vllm:generation_tokens_total")
    await asyncio.sleep(3 * PAUSE)
    after = metric(await (await client.get("/metrics")).text(), "vllm:generation_tokens_total")
    assert before == after < 100
    await inflict(client, hang=False, slow=1)
    rest = await stream.text()
    assert '"t99 "' in rest
    assert rest.endswith("data: [DONE]\n\n")


async def test_only_requests_with_the_stalled_prefix_stall(connect: Connect) -> None:
    client = await connect()
    await inflict(client, stall_request="bad-")
    stuck = await client.post(CHAT, json=chat(5, stream=True), headers={"x-request-id": "bad-1"})
    healthy = await client.post(CHAT, json=chat(5, stream=True), headers={"x-request-id": "good-1"})
    assert await content(healthy) == numbered(5)
    assert await silent(stuck)
    await inflict(client, stall_request=None)
    assert await content(stuck) == numbered(5)


async def test_a_slow_engine_runs_its_clock_slower_by_the_factor(connect: Connect) -> None:
    client = await connect()
    await inflict(client, slow=1000)
    stream = await client.post(CHAT, json=chat(5, stream=True))
    assert await silent(stream)
    await inflict(client, slow=1)
    assert await content(stream) == numbered(5)


async def test_one_field_leaves_the_others_in_force(connect: Connect) -> None:
    client = await connect()
    await inflict(client, slow=3)
    state = await (await inflict(client, stall_request="x")).json()
    assert state == {"hang": False, "slow": 3, "stall_request": "x"}
    assert await (await client.get("/faults")).json() == state


@pytest.mark.parametrize("fault", [{"hang": 1}, {"slow": 0}, {"slow": True}, {"stall_request": 1}, {"explode": True}])
async def test_a_wrong_fault_is_400_names_the_field_and_changes_nothing(
    connect: Connect, fault: dict[str, object]
) -> None:
    client = await connect()
    response = await inflict(client, **{"slow": 9, **fault})
    assert response.status == 400
    assert (await response.json())["error"]["param"] in fault
    assert (await (await client.get("/faults")).json())["slow"] == 1.0


async def test_to_die_is_to_leave_at_once_with_status_one() -> None:
    codes: list[int] = []
    faults = Faults(Service(Engine(QUICK.profile), RequestLog(None)), kill=codes.append)
    faults.apply({"die": False})
    assert codes == []
    faults.apply({"die": True})
    assert codes == [1]
