"""What can happen to a call instead of what should."""

from __future__ import annotations

import asyncio
from itertools import cycle

import orjson
from aiohttp import web
from tests.faults.proxy import Action, Answer, Exchange, GoneAwayError

REASONS = {
    403: "Forbidden",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def status_document(code: int, message: str = "a fault that a test has injected") -> dict[str, object]:
    """Return what the API server says when it refuses."""
    reason = REASONS.get(code, "Unknown")
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason} | {
        "message": message
    }


def refuse(code: int, *, retry_after: int | None = None) -> Action:
    """Answer with this code; the API server never hears of the call."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.call.status = code
        later = "" if retry_after is None else str(retry_after)
        return Answer(code, orjson.dumps(status_document(code)), retry_after=later).response()

    return act


async def lose_answer(exchange: Exchange) -> web.StreamResponse:
    """Carry the call out and cut the connection instead of answering."""
    await exchange.ask()
    raise GoneAwayError


def spoil_answer(code: int) -> Action:
    """Carry the call out and say that it failed."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await exchange.ask()
        return Answer(code, orjson.dumps(status_document(code))).response()

    return act


async def never_answer(exchange: Exchange) -> web.StreamResponse:
    """Take the call and say nothing."""
    return await asyncio.Future()


async def cut_in_the_middle(exchange: Exchange) -> web.StreamResponse:
    """Answer one half and cut the connection."""
    return await exchange.halve()


def late(seconds: float) -> Action:
    """Pass the call on after a while."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await exchange.pass_on()

    return act


def late_events(seconds: float) -> Action:
    """Hold each event of a watch back for so long, one after the other."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        return await exchange.stream(pause=seconds)

    return act


def cut_after(events: int) -> Action:
    """Cut a watch after so many events."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        return await exchange.stream(events=events)

    return act


def error_after(events: int, code: int) -> Action:
    """End a watch by an ERROR event with this code after so many events."""
    last = orjson.dumps({"type": "ERROR", "object": status_document(code)}) + b"\n"

    async def act(exchange: Exchange) -> web.StreamResponse:
        return await exchange.stream(events=events, last_words=last)

    return act


def garble_after(events: int) -> Action:
    """End a watch in the middle of an event."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        return await exchange.stream(events=events, last_words=b'{"type":"MODIFIED","object":{"kind":')

    return act


def older_than(moment: float) -> Action:
    """Answer a list as it was before this moment (wall time); a list that was not read before is passed on."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        stale = exchange.older_list(moment)
        return stale.response() if stale else await exchange.pass_on()

    return act


def in_turn(*acts: Action) -> Action:
    """Do one after the other, call by call, and begin again at the end."""
    turns = cycle(acts)

    async def act(exchange: Exchange) -> web.StreamResponse:
        return await next(turns)(exchange)

    return act
