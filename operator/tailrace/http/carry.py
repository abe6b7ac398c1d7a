"""One request carried over aiohttp: drives ``core.exchange`` and does what its steps say.

The head of the engine's answer is held back until the first bytes of its body have come. Until then nothing has
reached the client, so a failure can still be tried elsewhere, and head and first bytes go out in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import aiohttp
from aiohttp import web

from tailrace.core.exchange import DECLINES, Exchange, Fail, Failure, Forward, Refuse, Step, Wait
from tailrace.core.model import Outcome, Pick, RefusalCode, Request
from tailrace.core.router import Router
from tailrace.http import sse
from tailrace.http.body import Body
from tailrace.http.errors import failed, refused
from tailrace.http.headers import to_client, to_upstream
from tailrace.http.observer import Observer
from tailrace.http.rewrite import replace_model
from tailrace.http.serving import leaving
from tailrace.http.turns import Turns
from tailrace.http.upstream import AttemptError, Upstream, words
from tailrace.http.usage import read_usage
from tailrace.http.watch import Stop, Watch

LAST_WORDS_SECONDS = 5.0
"""How long a client may take to read the error that ends its stream."""

CLIENT_GONE = "client-gone"
DECLINED = "declined"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Means:
    """What every request of the proxy door is carried with. ``live`` maps attempts in flight to their requests."""

    router: Router
    clock: Callable[[], float]
    observer: Observer
    upstream: Upstream
    turns: Turns
    live: dict[str, Carry]


class _Relayed(web.StreamResponse):
    """An answer whose head waits for its first bytes, so that both go out in one write."""

    _send_headers_immediately = False


class Carry:
    """The life of one request at the proxy. ``code`` says in the end what went wrong, empty when nothing did.

    ``counts``: the strategy wants to know what the engine counted.
    """

    def __init__(
        self,
        means: Means,
        request: web.BaseRequest,
        asked: Request,
        body: Body,
        *,
        identity: str,
        stream: bool,
        counts: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is carried by the task of its handler")
        self.code = ""
        self.first_at: float | None = None
        self.last_at = 0.0
        self.chunks = 0
        self._means = means
        self._request = request
        self._body = body
        self._identity = identity
        self._model = asked.model
        self._loop = loop
        self._task: asyncio.Task[object] = task
        self._watch = Watch(loop, task, stream=stream, client_blocks=self._client_blocks)
        self._turn = asyncio.Event()
        self._exchange = Exchange(means.router, asked, self._turn.set)
        self._response: web.StreamResponse | None = None
        self._counts = counts
        self._before = b""
        self._tail = b""
        self._relayed = False

    async def run(self) -> web.StreamResponse:
        """Carry the request to its end; DoorError when nothing was sent and nothing can be."""
        step: Step | None = self._exchange.start(self._means.clock())
        while isinstance(step, Forward | Wait):
            step = await (self._attempt(step.pick) if isinstance(step, Forward) else self._wait(step))
        if isinstance(step, Refuse):
            self.code = step.refusal.code.value
            raise refused(step.refusal)
        if isinstance(step, Fail):
            return await self._fail(step)
        return self._answer()

    def cut(self) -> None:
        """End the attempt in flight: its endpoint's drain deadline has passed."""
        self._watch.interrupt(Stop.CUT)

    def shut_down(self) -> None:
        """End the attempt in flight, and with it the request: this router stops."""
        self._watch.interrupt(Stop.SHUTDOWN)

    # Its turn

    async def _wait(self, step: Wait) -> Forward | Refuse | Fail:
        """Wait until an endpoint has a slot for the request, or for as long as it may."""
        began = perf_counter()
        outcome = CLIENT_GONE
        self._means.turns.watch()
        try:
            after = await self._its_turn(step.until)
            outcome = _came_of(after)
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            self._means.observer.waited(self._model, outcome, perf_counter() - began)
        return after

    async def _its_turn(self, until: float) -> Forward | Refuse | Fail:
        try:
            async with asyncio.timeout(until - self._means.clock()):
                await self._turn.wait()
        except TimeoutError:
            return self._exchange.waited(self._means.clock())
        finally:
            self._turn.clear()
        return self._exchange.answered()

    # One attempt

    async def _attempt(self, pick: Pick) -> Step | None:
        """Make one attempt; return the step that follows, None when the request is over."""
        self._means.live[pick.attempt] = self
        self._watch.attempt(pick.timeouts)
        try:
            return await self._exchanged(pick)
        except AttemptError as error:
            return self._failed(error.failure, str(error))
        except asyncio.CancelledError:
            return self._interrupted()
        except BaseException:
            self._means.router.release(pick.attempt, Outcome.FAILED, self._means.clock())
            raise
        finally:
            self._watch.stop()
            del self._means.live[pick.attempt]

    async def _exchanged(self, pick: Pick) -> Step | None:
        """Send the request to the engine and relay what it answers, unless it declines and there is another one."""
        content = self._body.content if pick.rewrite is None else replace_model(self._body.content, pick.rewrite)
        headers = to_upstream(self._request.headers, self._identity)
        upstream = await self._means.upstream.post(pick, self._request.raw_path, headers, content)
        try:
            if upstream.status in DECLINES and (step := self._declined(upstream)) is not None:
                return step
            first = await self._first(upstream)
            self._begin(ok=upstream.status < 400)
            response = await self._head(upstream, pick)
            await self._relay(upstream, response, first)
        except BaseException:
            upstream.close()
            raise
        return None

    def _declined(self, upstream: aiohttp.ClientResponse) -> Step | None:
        """Return where to go in place of an engine that can take no more now; None when its answer is to be relayed."""
        step = self._exchange.declined(self._means.clock())
        if step is None:
            return None
        upstream.release()
        log.info("attempt declined with %d; trying another endpoint", upstream.status, extra=self._about())
        return self._noted(step, DECLINED)

    async def _first(self, upstream: aiohttp.ClientResponse) -> bytes:
        try:
            return await upstream.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptError(Failure.NO_RESPONSE, words(error)) from error

    def _begin(self, *, ok: bool) -> None:
        self._exchange.first_byte(self._means.clock(), ok=ok)
        self._body.drop()  # an answer that has begun is never asked for again
        self._watch.begin()
        self.first_at = perf_counter()

    async def _head(self, upstream: aiohttp.ClientResponse, pick: Pick) -> web.StreamResponse:
        headers = to_client(upstream.headers, self._identity, pick.address)
        response = _Relayed(status=upstream.status, reason=upstream.reason, headers=headers)
        self._response = response
        if upstream.status >= 400:
            self.code = str(upstream.status)
        if leaving(self._request):
            response.force_close()
        await response.prepare(self._request)
        return response

    async def _relay(self, upstream: aiohttp.ClientResponse, response: web.StreamResponse, chunk: bytes) -> None:
        """Write every chunk as it comes. This is the hot path of a stream: one read, one write, no timer."""
        watch, time, content = self._watch, self._loop.time, upstream.content
        try:
            while chunk:
                self.chunks += 1
                self._before = self._tail
                self._tail = chunk if len(chunk) >= sse.TAIL_BYTES else sse.tail(self._tail, chunk)
                await response.write(chunk)
                chunk = await content.readany()
                watch.touched = time()
            self._complete()
            await response.write_eof()
        except (aiohttp.ClientError, OSError) as error:
            self._broken(error)
            upstream.close()

    def _complete(self) -> None:
        """Book the end: the engine is done, even if the client has yet to read the last bytes."""
        self.last_at = perf_counter()
        self._relayed = True
        self._exchange.completed(self._means.clock(), read_usage(self._before + self._tail) if self._counts else None)

    def _broken(self, error: Exception) -> None:
        """Tell a client that has left from an engine that has: both look alike where they are noticed."""
        if not (self._relayed or self._client_left()):
            raise AttemptError(Failure.BROKEN, words(error)) from error
        self._leave()

    # Ends that are not the engine's end of the answer

    def _interrupted(self) -> Step | None:
        """Say what follows after a cancellation: our own, for a reason, or that of a client who has left."""
        why = self._watch.why
        if why is None or self._task.uncancel() > 0:
            self._leave()
            raise asyncio.CancelledError
        if self._relayed or why is Stop.CLIENT_STALLED:
            self._leave(CLIENT_GONE if why is not Stop.SHUTDOWN else why.value)
            self._abort()
            return None
        if isinstance(why, Failure):
            return self._failed(why, "time is up")
        return self._ended_early(why)

    def _ended_early(self, why: Stop) -> Step:
        log.warning("ended early: %s", why.value, extra=self._about())
        now = self._means.clock()
        step = self._exchange.stopped(now) if why is Stop.SHUTDOWN else self._exchange.cut(now)
        return self._noted(step, why.value)

    def _failed(self, failure: Failure, detail: str) -> Step:
        log.warning("attempt failed: %s: %s", failure.value, detail, extra=self._about())
        return self._noted(self._exchange.failed(failure, self._means.clock()), failure.value)

    def _noted(self, step: Step, reason: str) -> Step:
        if isinstance(step, Forward | Wait):
            self._means.observer.retried(reason)
        return step

    def _leave(self, code: str = CLIENT_GONE) -> None:
        """Book that the client is gone, or let go."""
        self.code = code
        self._exchange.client_gone(self._means.clock())

    async def _fail(self, step: Fail) -> web.StreamResponse:
        """Answer with an error, or end the stream with one."""
        self.code = step.verdict.code
        error = failed(step.verdict)
        if not step.streaming:
            raise error
        response = self._answer()
        if _takes_events(response):
            await self._last_words(response, error.body())
        else:
            self._abort()
        return response

    async def _last_words(self, response: web.StreamResponse, error: bytes) -> None:
        """End the stream with an error. Its head promised to keep the connection: the client may be using it."""
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await response.write(sse.last_event(self._tail, error))
                await response.write_eof()
        except (OSError, TimeoutError):
            self._abort()

    def _abort(self) -> None:
        """Break off the client's connection: the only sign of an incomplete answer that has no events."""
        if self._request.transport is not None:
            self._request.transport.abort()

    # Facts

    def _answer(self) -> web.StreamResponse:
        """Return the answer that has begun."""
        if self._response is None:
            raise RuntimeError("the request ended without an answer and without an error")
        return self._response

    def _client_blocks(self) -> bool:
        return self._request.protocol.writing_paused

    def _client_left(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def _about(self) -> dict[str, str]:
        return {"request_id": self._identity, "model": self._model}


def _came_of(after: Forward | Refuse | Fail) -> str:
    """Return what came of a wait, as it is counted."""
    if isinstance(after, Forward):
        return "picked"
    refused_early = isinstance(after, Refuse) and after.refusal.code is not RefusalCode.WAITED_OUT
    return "refused" if refused_early else "expired"


def _takes_events(response: web.StreamResponse) -> bool:
    """Whether an event can be added to the answer: it is a stream of them, not encoded, of no fixed length."""
    return (
        response.content_type == "text/event-stream"
        and "content-encoding" not in response.headers
        and response.content_length is None
    )
