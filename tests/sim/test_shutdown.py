import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    TraceConfig,
    TraceRequestEndParams,
)
from tests.sim.wire import chat, data_events, eventually

CHAT = "/v1/chat/completions"
RUN = "import typer; from tailrace.cli.model_server import model_server; typer.run(model_server)"
ENDLESS = 9000


class Running:
    """A model server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log

    def log(self, *events: str) -> list[dict[str, Any]]:
        written = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in written if line["event"] in events]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 10)


Launch = Callable[..., Awaitable[Running]]


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    started: list[asyncio.subprocess.Process] = []

    async def start(*options: str) -> Running:
        log = tmp_path / f"{len(started)}.jsonl"
        fixed = ("--port", "0", "--model", "llama", "--itl-ms", "5", "--request-log", str(log))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUN, *fixed, *options, stdout=asyncio.subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 10)
        return Running(process, line.decode().split()[-1], log)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    """Yield a session that closes at its end what tests leave open."""
    opened: list[ClientResponse] = []

    async def keep(_session: ClientSession, _context: object, ended: TraceRequestEndParams) -> None:
        opened.append(ended.response)

    trace = TraceConfig()
    trace.on_request_end.append(keep)
    async with ClientSession(trace_configs=[trace]) as session:
        yield session
        for response in opened:
            response.close()


async def begun(session: ClientSession, server: Running, name: str, max_tokens: int = ENDLESS) -> ClientResponse:
    """Return a stream whose first token has come."""
    response = await session.post(server.url + CHAT, json=chat(max_tokens, stream=True), headers={"x-request-id": name})
    await response.content.readuntil(b'"t0 "')
    return response


async def until_stopping(server: Running) -> None:
    await eventually(lambda: server.log("sigterm"))


async def rest(response: ClientResponse, received: bytearray) -> None:
    """Add what still comes to `received`."""
    async for piece in response.content.iter_any():
        received += piece


async def test_abort_cuts_every_request_at_once_and_exits(launch: Launch, session: ClientSession) -> None:
    server = await launch()
    streams = [await begun(session, server, f"s{n}") for n in range(5)]
    waiting = asyncio.create_task(
        session.post(server.url + CHAT, json=chat(ENDLESS), headers={"x-request-id": "whole"})
    )
    await begun(session, server, "last")
    server.terminate()
    for stream in streams:
        received = bytearray()
        with pytest.raises((ClientPayloadError, ClientConnectionError)):
            await rest(stream, received)
        assert b"[DONE]" not in received
    with pytest.raises(ClientConnectionError):
        await waiting
    assert await server.code() == 0
    ends = server.log("end")
    assert {line["request_id"] for line in ends} == {"s0", "s1", "s2", "s3", "s4", "whole", "last"}
    assert {line["outcome"] for line in ends} == {"sigterm"}
    assert all(line["tokens_sent"] < ENDLESS for line in ends)


async def test_finish_lets_requests_in_flight_end_and_takes_no_new_ones(launch: Launch, session: ClientSession) -> None:
    server = await launch("--on-sigterm", "finish")
    streams = [await begun(session, server, f"s{n}", 200) for n in range(5)]
    whole = asyncio.create_task(session.post(server.url + CHAT, json=chat(200)))
    await begun(session, server, "last", 200)
    server.terminate()
    await until_stopping(server)
    with pytest.raises(ClientConnectionError):
        await session.post(server.url + CHAT, json=chat(1))
    for stream in streams:
        assert (await stream.text()).endswith("data: [DONE]\n\n")
    assert (await (await whole).json())["usage"]["completion_tokens"] == 200
    assert await server.code() == 0
    assert {line["outcome"] for line in server.log("end")} == {"finished"}


async def test_a_second_signal_cuts_what_was_left_to_finish(launch: Launch, session: ClientSession) -> None:
    server = await launch("--on-sigterm", "finish", "--itl-ms", "1000")
    stream = await begun(session, server, "slow")
    server.terminate()
    await until_stopping(server)
    server.terminate()
    with pytest.raises((ClientPayloadError, ClientConnectionError)):
        await stream.text()
    assert await server.code() == 0
    assert [line["outcome"] for line in server.log("end")] == ["sigterm"]


@pytest.mark.parametrize("mode", ["abort", "finish"])
async def test_an_idle_server_exits_at_once_even_with_idle_connections(
    launch: Launch, session: ClientSession, mode: str
) -> None:
    server = await launch("--on-sigterm", mode)
    await (await session.post(server.url + CHAT, json=chat(1))).read()
    server.terminate()
    assert await server.code() == 0


async def test_a_hung_server_with_a_waiting_health_check_still_stops(launch: Launch, session: ClientSession) -> None:
    server = await launch("--on-sigterm", "finish", "--faults")
    await session.post(server.url + "/faults", json={"hang": True})
    health = asyncio.create_task(session.get(server.url + "/health"))
    await asyncio.sleep(0.05)
    server.terminate()
    assert (await health).status == 503
    assert await server.code() == 0


async def test_the_log_tells_of_startup_readiness_sigterm_and_exit(launch: Launch, session: ClientSession) -> None:
    server = await launch("--startup-seconds", "0.1")
    assert (await session.get(server.url + "/health")).status == 503
    await eventually(lambda: server.log("ready"))
    assert (await session.get(server.url + "/health")).status == 200
    server.terminate()
    await server.code()
    told = server.log("startup", "ready", "sigterm", "exit")
    assert [line["event"] for line in told] == ["startup", "ready", "sigterm", "exit"]
    assert told[0]["port"] == int(server.url.rsplit(":", 1)[1])
    assert told[2]["in_flight"] == 0
    assert {line["pid"] for line in told} == {server.process.pid}


async def test_a_server_told_to_die_cuts_its_streams_and_leaves_with_status_one(
    launch: Launch, session: ClientSession
) -> None:
    server = await launch("--faults")
    stream = await begun(session, server, "victim")
    with pytest.raises(ClientConnectionError):
        await session.post(server.url + "/faults", json={"die": True})
    with pytest.raises((ClientPayloadError, ClientConnectionError)):
        await stream.text()
    assert await server.code() == 1
    assert [line["outcome"] for line in server.log("end")] == ["aborted"]


async def test_a_finished_stream_is_whole_on_a_slow_reader(launch: Launch, session: ClientSession) -> None:
    server = await launch("--on-sigterm", "finish", "--speed", "1000")
    response = await session.post(server.url + CHAT, json=chat(50_000, stream=True))
    await asyncio.sleep(0.3)
    server.terminate()
    events = data_events(await response.text())
    assert len(events) == 50_000 + 3
    assert await server.code() == 0


async def test_a_port_in_use_is_said_in_one_line(launch: Launch) -> None:
    server = await launch()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN, "--port", server.url.rsplit(":", 1)[1]),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    _, complaint = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert b"--port" in complaint
    assert b"Traceback" not in complaint
