"""Clients that ask /route and stream from the pod itself: an operator that dies must cost them nothing."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from tests.cluster.load import Record

DATA = b"data: "
PATIENCE_SECONDS = 0.1


@dataclass
class Direct:
    """A steady load past the proxy. A router that is away is asked again; only what a pod cuts is a loss."""

    routing: str
    model: str
    clients: int = 6
    tokens: int = 60
    records: dict[str, Record] = field(default_factory=dict)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120))
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        try:
            await asyncio.wait_for(asyncio.gather(*self._tasks), 120)
        finally:
            await self._session.close()

    @property
    def losses(self) -> list[Record]:
        """The requests that reached a pod and are not whole."""
        return [record for record in self.records.values() if record.ended_at is not None and not record.complete]

    async def _client(self) -> None:
        while not self._stop.is_set():
            routed = await self._route()
            if routed is None:
                await asyncio.sleep(PATIENCE_SECONDS)
            else:
                await self._one(*routed)

    async def _route(self) -> tuple[float, str, str] | None:
        """Return when it was asked, the address and the attempt; None when nobody answers or nothing is ready."""
        asked = time.time()
        try:
            query = {"model": self.model, "tokens": str(self.tokens)}
            async with self._session.get(f"{self.routing}/route", params=query) as answer:
                if answer.status != 200:
                    return None
                return asked, answer.headers["x-gateway-destination-endpoint"], answer.headers["x-tailrace-request"]
        except aiohttp.ClientError:
            return None

    async def _one(self, asked: float, address: str, attempt: str) -> None:
        record = Record(uuid.uuid4().hex, self.tokens, asked, endpoint=address)
        self.records[record.id] = record
        try:
            await self._read(record)
        except aiohttp.ClientError as error:
            record.error = f"{type(error).__name__}: {error}"
        finally:
            record.ended_at = time.time()
        await self._complete(attempt)
        if record.error:
            await asyncio.sleep(PATIENCE_SECONDS)  # a refused client must not turn into a busy loop

    async def _read(self, record: Record) -> None:
        body: dict[str, Any] = {"model": self.model, "stream": True, "max_tokens": record.wanted}
        body["messages"] = [{"role": "user", "content": "x"}]
        url, headers = f"http://{record.endpoint}/v1/chat/completions", {"x-request-id": record.id}
        async with self._session.post(url, json=body, headers=headers) as answer:
            if answer.status != 200:
                record.error = f"{answer.status} {await answer.text()}"
            async for line in answer.content:
                if line.startswith(DATA):
                    _take(record, line.removeprefix(DATA).strip())

    async def _complete(self, attempt: str) -> None:
        try:
            async with self._session.post(f"{self.routing}/complete/{attempt}") as answer:
                await answer.read()
        except aiohttp.ClientError:
            return  # the router is away; it learns from the engine that the request has ended


def _take(record: Record, data: bytes) -> None:
    if data == b"[DONE]":
        record.done = True
        return
    for choice in orjson.loads(data).get("choices", ()):
        record.finish_reason = choice.get("finish_reason") or record.finish_reason
        for token in ((choice.get("delta") or {}).get("content") or "").split():
            record.first_at = record.first_at or time.time()
            record.in_order = record.in_order and token == f"t{record.received}"
            record.received += 1
