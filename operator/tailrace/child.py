"""The Kubernetes child: started, supervised, restarted; the data plane serves on while it is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tailrace.link import (
    Cordon,
    Cordoned,
    Desired,
    GateMark,
    Leave,
    Member,
    Message,
    Review,
    Reviewed,
    Stopping,
    encode,
    receive,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the parent waits for what, in seconds, and how much a child may leave unread.

    ``backoff``: pauses before restarts in a row; the last one repeats. A child that lived for ``stable`` starts the
    row anew. ``stop``: how long a child may take to leave before it is killed.
    """

    backoff: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    stable: float = 60.0
    review: float = 10.0
    stop: float = 5.0
    unsent_bytes: int = 64 * 1024 * 1024


PATIENCE = Patience()


class KubernetesChild:
    """Runs ``command`` with the link's messages on its standard streams.

    ``on_message`` gets every message but the answers to reviews; when it raises, that message is lost and no other.
    What is desired is remembered and said again to each new child, so that nothing is lost with an old one.
    """

    def __init__(
        self,
        command: Sequence[str],
        on_message: Callable[[Message], None],
        clock: Callable[[], float],
        patience: Patience = PATIENCE,
    ) -> None:
        self._command = command
        self._on_message = on_message
        self._clock = clock
        self._patience = patience
        self._process: asyncio.subprocess.Process | None = None
        self._desired: Desired | None = None
        self._unwritten: dict[str, Cordon] = {}
        self._leaving = False
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
            await self._one_life()
            if self._leaving:
                return
            row = 0 if self._clock() - started > self._patience.stable else row
            pause = self._patience.backoff[min(row, len(self._patience.backoff) - 1)]
            row += 1
            self.restarts += 1
            log.warning("the Kubernetes child ended; serving on with the last snapshot, next start in %.1f s", pause)
            await asyncio.sleep(pause)

    async def _one_life(self) -> None:
        """Start a child and stay until it has ended. Whatever goes wrong with it ends this child only."""
        try:
            await self._live()
        except Exception:
            log.exception("trouble with the Kubernetes child")
        finally:
            self._fail_reviews()

    async def _live(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
        )
        try:
            if self._desired is not None:
                self._send(self._desired)
            for cordon in self._unwritten.values():
                self._send(cordon)
            await self._read(_output(self._process))
        finally:
            await _to_its_end(self._stop(self._process))

    async def _read(self, output: asyncio.StreamReader) -> None:
        while (message := await receive(output)) is not None:
            self._hear(message)
            # A full pipe must not keep the doors waiting: give them a turn after every batch.
            await asyncio.sleep(0)

    def _hear(self, message: Message) -> None:
        if isinstance(message, Reviewed):
            self._answer(message)
            return
        if isinstance(message, Cordoned):
            self._cordoned(message.cordon)
            return
        try:
            self._on_message(message)
        except Exception:
            log.exception("a message of the Kubernetes child could not be taken in: %s", type(message).__name__)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """End the child: it leaves by itself when its input closes, and is killed when it does not."""
        if process.stdin is not None:
            process.stdin.close()
        # What it still says is thrown away: with a full pipe it could not leave, and the pipe would stay open.
        rest = asyncio.create_task(_discard(_output(process)))
        try:
            for end in (process.terminate, process.kill):
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        end()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), self._patience.stop)
            await asyncio.wait([rest], timeout=self._patience.stop)
        finally:
            rest.cancel()

    def desire(self, desired: Desired) -> None:
        """Tell the child what should be true, of all endpoints; the newest word replaces every older one."""
        known, self._desired = self._desired, desired
        # Thousands of endpoints take long to say, and drains that end have much to say in between.
        same = known is not None and known.endpoints == desired.endpoints
        self._send(replace(desired, endpoints=None) if same else desired)

    def cordon(self, cordon: Cordon) -> None:
        """Have a pod marked: the last word on each pod is said to every new child, until one says it is written."""
        known = self._unwritten.get(cordon.uid)
        if known is None or known.generation <= cordon.generation:
            self._unwritten[cordon.uid] = cordon
            self._send(cordon)

    def _cordoned(self, cordon: Cordon) -> None:
        if self._unwritten.get(cordon.uid) == cordon:
            del self._unwritten[cordon.uid]

    def mark_gate(self, mark: GateMark) -> None:
        """Have a pod marked; to be said again until it is seen."""
        self._send(mark)

    def stopping(self) -> None:
        """Tell the others that this replica takes no new requests."""
        self._send(Stopping())

    async def leave(self) -> None:
        """Have this replica taken off the members, and the child end for good. Waits for it, but not for long."""
        self._leaving = True
        process = self._process
        if process is not None and self._send(Leave()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._patience.stop)

    def _send(self, message: Message) -> bool:
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None or process.stdin.is_closing():
            return False
        if process.stdin.transport.get_write_buffer_size() > self._patience.unsent_bytes:
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
            return await asyncio.wait_for(answer, self._patience.review)
        except TimeoutError:
            return _unasked(ticket, f"the API server gave no answer in {self._patience.review:.0f} s")
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


def agent_command(me: Member) -> list[str]:
    """Return how this very program is started as its own child, on behalf of this member."""
    return [sys.executable, "-m", "tailrace", "kube-agent", "--", me.id, me.address, me.pod_uid]


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work whole, even when the waiting for it is cancelled: a child half stopped would stay behind."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _unasked(ticket: int, why: str) -> Reviewed:
    return Reviewed(ticket, authenticated=False, allowed=False, error=why)


def _output(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise RuntimeError("the child was started without a pipe")
    return process.stdout


async def _discard(output: asyncio.StreamReader) -> None:
    while await output.read(64 * 1024):
        pass
