"""Request bodies within limits: each one's size, all of them together, and the time they may take to come."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from tailrace.http.ask import parse_object
from tailrace.http.errors import RETRY_AFTER, DoorError


class Budget:
    """The bytes of all bodies that are held at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Account for ``size`` bytes more; DoorError 503 when they do not fit."""
        if self.used + size > self._limit:
            raise DoorError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "body_budget_exhausted",
                f"all request bodies together exceed {self._limit} bytes; try again after the seconds in Retry-After",
                headers={RETRY_AFTER: "1"},
                close=True,
            )
        self.used += size

    def give(self, size: int) -> None:
        """Give back ``size`` bytes."""
        self.used -= size


class Body:
    """One request's body: read once, held until ``drop``."""

    __slots__ = ("_budget", "_held", "content")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0
        self.content = b""

    def hold(self, chunk: bytes) -> None:
        """Account for a chunk."""
        self._budget.take(len(chunk))
        self._held += len(chunk)

    def drop(self) -> None:
        """Forget the content: nobody will need it again. May be called more than once."""
        self._budget.give(self._held)
        self._held = 0
        self.content = b""


class Bodies:
    """Reads bodies of ``limit`` bytes at most, within ``budget`` bytes in all, within ``seconds`` each."""

    def __init__(self, *, limit: int, budget: int, seconds: float) -> None:
        self.budget = Budget(budget)
        self._limit = limit
        self._seconds = seconds

    async def document(self, request: web.BaseRequest) -> dict[str, Any]:
        """Return the JSON object of the request's body, empty without a body; DoorError when it is none."""
        if not request.body_exists:
            return {}
        body = Body(self.budget)
        try:
            content = await self.read(request, body)
            return parse_object(content) if content else {}
        finally:
            body.drop()

    async def read(self, request: web.BaseRequest, body: Body) -> bytes:
        """Read the request's body; DoorError when it is too large, too slow, encoded or broken off."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _encoded()
        if (request.content_length or 0) > self._limit:
            raise self._too_large()
        try:
            body.content = await self._within_time(request, body)
        except RequestPayloadError as error:
            raise DoorError(
                HTTPStatus.BAD_REQUEST, "body_incomplete", f"the body is not valid HTTP: {error}; send it again"
            ) from error
        return body.content

    async def _within_time(self, request: web.BaseRequest, body: Body) -> bytes:
        if request.content.is_eof():  # it came with its head, as most do
            return self._account(request.content.read_nowait(), 0, body)
        try:
            async with asyncio.timeout(self._seconds):
                await _go_ahead(request)
                return await self._gather(request, body)
        except TimeoutError:
            raise DoorError(
                HTTPStatus.REQUEST_TIMEOUT,
                "body_timeout",
                f"the body did not arrive within {self._seconds:g} seconds; send it again, faster",
                close=True,
            ) from None

    async def _gather(self, request: web.BaseRequest, body: Body) -> bytes:
        chunks = []
        size = 0
        while chunk := await request.content.readany():
            chunks.append(self._account(chunk, size, body))
            size += len(chunk)
        return b"".join(chunks)

    def _account(self, chunk: bytes, before: int, body: Body) -> bytes:
        if before + len(chunk) > self._limit:
            raise self._too_large()
        body.hold(chunk)
        return chunk

    def _too_large(self) -> DoorError:
        return DoorError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"the body is larger than {self._limit} bytes; send less, or raise TAILRACE_MAX_BODY_BYTES",
            close=True,
        )


async def _go_ahead(request: web.BaseRequest) -> None:
    """Tell a client that waits for permission to send its body."""
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _encoded() -> DoorError:
    return DoorError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "body_encoded",
        "bodies with a Content-Encoding are not read; send the JSON as it is",
        close=True,
    )
