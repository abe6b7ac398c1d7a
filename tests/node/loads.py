"""Load on the served model, and the audit of what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.load import Load, Record
from tests.cluster.servers import MODEL, Document, Servers, eventually
from tests.node.documents import SERVER
from tests.node.release import Release
from tests.node.witness import Witness

CLIENTS = 16
TOKENS = (15, 80)
WARM_UP_SECONDS = 1.5
LONG = 250
"""Tokens of a stream that takes some 10 s."""
ENDLESS = 2000
"""Tokens of a stream that takes longer than any drain of these tests may."""


@asynccontextmanager
async def under_load(servers: Servers, release: Release, model: str = MODEL) -> AsyncIterator[tuple[Load, Witness]]:
    """Stream from the served model while the block runs."""
    load = Load(release.proxy, model, clients=CLIENTS, tokens=TOKENS, seed=5)
    async with load, Witness(servers, load) as witness:
        await asyncio.sleep(WARM_UP_SECONDS)
        yield load, witness


def address_of(pod: Document) -> str:
    """Return where the pod's engine listens."""
    return f"{pod['status'].get('podIP')}:8000"


def terminating(servers: Servers) -> list[str]:
    """Return the names of the pods that are being deleted."""
    return [pod["metadata"]["name"] for pod in servers.pods() if "deletionTimestamp" in pod["metadata"]]


@asynccontextmanager
async def one_stream(
    servers: Servers, base_url: str, tokens: int = LONG
) -> AsyncIterator[tuple[asyncio.Task[Record], Document]]:
    """Yield a long stream and the pod that it comes from."""
    async with Load(base_url, MODEL, clients=0) as load:
        stream = asyncio.create_task(load.one(tokens, "x"))
        await asyncio.to_thread(eventually, lambda: [one for one in load.running if one.received], seconds=10)
        address = load.running[0].endpoint.removesuffix(":8000")
        pods = await asyncio.to_thread(servers.pods, SERVER)
        yield stream, next(pod for pod in pods if pod["status"].get("podIP") == address)
        await stream
