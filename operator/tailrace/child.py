"""The Kubernetes child: started, supervised, restarted; the data plane serves on while it is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from tailrace.link import Desired, Message, Review, Reviewed, encode, receive

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before restarts in a row; the last one repeats. A child that lived for a minute starts the row anew."""

STABLE_SECONDS = 60.0
REVIEW_SECONDS = 10.0
STOP_SECONDS = 5.0
MAX_UNSENT_BYTES = 64 * 1024 * 1024


class KubernetesChild:
    """Runs ``command`` with the link's messages on its standard streams.

    ``on_message`` gets every message but the answers to reviews. What is desired is remembered and said again to each
    new child, so that nothing is lost with an old one.
    """

    def __init__(
        self, command: Sequence[str], on_message: Callable[[Message], None], clock: Callable[[], float]
    ) -> None:
        self._command = command
        self._on_message = on_message
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._desired: Desired | None = None
        self._reviews: dict[int, asyncio.Future[Reviewed]] = {}
        self._ticket = 0
        self.restarts = 0

    @property
    def alive(self) -> bool:
        """Whether the child runs now."""
        return self._process is not None and self._process.returncode is None

    async def run(self) -> None:
        """Keep a child running until cancelled; then stop it."""
        row = 0
        while True:
            started = self._clock()
            try:
                await self._live()
            finally:
                self._fail_reviews()
            row = 0 if self._clock() - started > STABLE_SECONDS else row
            pause = BACKOFF_SECONDS[min(row, len(BACKOFF_SECONDS) - 1)]
            row += 1
            self.restarts += 1
            log.warning("the Kubernetes child ended; serving on with the last snapshot, next start in %.1f s", pause)
            await asyncio.sleep(pause)

    async def _live(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
        )
        try:
            if self._desired is not None:
                self._send(self._desired)
            await self._read(self._process)
        finally:
            await self._stop(self._process)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise RuntimeError("the child was started without a pipe")
        while (message := await receive(process.stdout)) is not None:
            if isinstance(message, Reviewed):
                self._answer(message)
            else:
                self._on_message(message)
            # A full pipe must not keep the doors waiting: give them a turn after every batch.
            await asyncio.sleep(0)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """End the child: it leaves by itself when its input closes, and is killed when it does not."""
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()

    def desire(self, desired: Desired) -> None:
        """Tell the child what should be true; the newest word replaces every older one."""
        self._desired = desired
        self._send(desired)

    def tell(self, message: Message) -> bool:
        """Send a message that is not repeated; return whether a child was there to hear it."""
        return self._send(message)

    def _send(self, message: Message) -> bool:
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None or process.stdin.is_closing():
            return False
        if process.stdin.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            log.error("the Kubernetes child has not read for long; ending it")
            process.kill()
            return False
        process.stdin.write(encode(message))
        return True

    async def review(
        self,
        token: str,
        *,
        audience: str | None = None,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
    ) -> Reviewed:
        """Ask the API server, through the child, who the token's bearer is and what it may do."""
        self._ticket += 1
        ticket = self._ticket
        answer: asyncio.Future[Reviewed] = asyncio.get_running_loop().create_future()
        self._reviews[ticket] = answer
        try:
            if not self._send(Review(ticket, token, audience, verb, resource, namespace)):
                return _unasked(ticket, "the Kubernetes side is restarting")
            return await asyncio.wait_for(answer, REVIEW_SECONDS)
        except TimeoutError:
            return _unasked(ticket, f"the API server gave no answer in {REVIEW_SECONDS:.0f} s")
        finally:
            self._reviews.pop(ticket, None)

    def _answer(self, message: Reviewed) -> None:
        waiting = self._reviews.get(message.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def _fail_reviews(self) -> None:
        for ticket, waiting in self._reviews.items():
            if not waiting.done():
                waiting.set_result(_unasked(ticket, "the Kubernetes side went away"))


def agent_command() -> list[str]:
    """Return how this very program is started as its own child."""
    return [sys.executable, "-m", "tailrace", "kube-agent"]


def _unasked(ticket: int, why: str) -> Reviewed:
    return Reviewed(ticket, authenticated=False, allowed=False, error=why)
