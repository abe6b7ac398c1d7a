"""Streaming clients that know by themselves whether they lost anything: numbered tokens, a final marker, no retry."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Self

import httpx2
from openai import APIError, AsyncOpenAI, DefaultAsyncHttpxClient

DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Record:
    """One request as its client saw it."""

    id: str
    wanted: int
    started_at: float
    endpoint: str = ""
    received: int = 0
    in_order: bool = True
    finish_reason: str | None = None
    done: bool = False
    error: str = ""
    first_at: float | None = None
    ended_at: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every token came, in order, with the finish reason and the final marker."""
        whole = self.received == self.wanted and self.in_order and self.finish_reason == "length"
        return whole and self.done and not self.error


class _Tail(httpx2.AsyncByteStream):
    """Passes a response's bytes on and remembers whether the last of them were the final marker."""

    def __init__(self, stream: httpx2.AsyncByteStream, record: Record) -> None:
        self._stream = stream
        self._record = record
        self._last = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._last = (self._last + chunk)[-len(DONE) :]
            self._record.done = self._last == DONE
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _told(error: BaseException) -> str:
    """Return an error with its causes: the client's own says no more than that there was one."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    return " < ".join(f"{type(one).__name__}: {one}" for one in causes)


@dataclass
class Load:
    """A steady load: `clients` tasks, each with one stream at a time, lengths drawn from a seed.

    Use as an async context manager; leaving it lets the last streams end. `records` holds every request.
    """

    base_url: str
    model: str
    clients: int = 32
    tokens: tuple[int, int] = (20, 120)
    prompt_words: int = 40
    seed: int = 1
    records: dict[str, Record] = field(default_factory=dict)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        hooks = {"response": [self._watch]}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.clients)
        self._http = DefaultAsyncHttpxClient(event_hooks=hooks, limits=limits)
        self._openai = AsyncOpenAI(
            base_url=f"{self.base_url}/v1", api_key="none", max_retries=0, timeout=300, http_client=self._http
        )
        self._tasks = [asyncio.create_task(self._client(Random(f"{self.seed}/{n}"))) for n in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        try:
            await asyncio.wait_for(asyncio.gather(*self._tasks), 300)
        finally:
            await self._openai.close()

    @property
    def running(self) -> list[Record]:
        """The requests that are under way now."""
        return [record for record in self.records.values() if record.ended_at is None]

    @property
    def losses(self) -> list[Record]:
        """The requests that ended and are not complete."""
        return [record for record in self.records.values() if record.ended_at is not None and not record.complete]

    def streaming_from(self, endpoint: str) -> list[Record]:
        """Return the requests that are receiving tokens from one endpoint now."""
        return [record for record in self.running if record.endpoint == endpoint and record.first_at is not None]

    async def _watch(self, response: httpx2.Response) -> None:
        record = self.records.get(response.request.headers.get("x-request-id", ""))
        if record is not None:
            record.endpoint = response.headers.get("x-gateway-destination-endpoint", "")
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Tail(response.stream, record)

    async def _client(self, rng: Random) -> None:
        while not self._stop.is_set():
            await self.one(rng.randint(*self.tokens), "word " * rng.randint(1, self.prompt_words))

    async def one(self, tokens: int, prompt: str) -> Record:
        """Make one request and wait for its end."""
        record = Record(uuid.uuid4().hex, tokens, time.time())
        self.records[record.id] = record
        try:
            await self._read(record, prompt)
        except (APIError, httpx2.HTTPError) as error:
            record.error = _told(error)
            await asyncio.sleep(0.05)  # a refused client must not turn into a busy loop
        finally:
            record.ended_at = time.time()
        return record

    async def _read(self, record: Record, prompt: str) -> None:
        stream = await self._openai.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=record.wanted,
            stream=True,
            extra_headers={"x-request-id": record.id},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                record.finish_reason = choice.finish_reason or record.finish_reason
                for token in (choice.delta.content or "").split():
                    record.first_at = record.first_at or time.time()
                    record.in_order = record.in_order and token == f"t{record.received}"
                    record.received += 1
