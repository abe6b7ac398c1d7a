from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from tailrace.sim.options import Options
from tailrace.sim.profile import Profile
from tailrace.sim.request_log import RequestLog
from tailrace.sim.server import ModelServer

Client = TestClient[Request, Application]
Connect = Callable[..., Awaitable[Client]]

QUICK = Options(
    models=("llama", "alias"),
    adapters=("finance-lora",),
    profile=Profile(ttft_base=0.002, itl=0.001, jitter=0, itl_growth=0, kv_tokens=4000, prefix_cache_tokens=4000),
    faults=True,
)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Start a model server with the options that differ from QUICK and return a client of it."""
    clients: list[Client] = []

    async def start(log: RequestLog | None = None, **changes: object) -> Client:
        server = ModelServer(replace(QUICK, **changes), log)  # type: ignore[arg-type]
        client = TestClient(TestServer(server.app))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()
