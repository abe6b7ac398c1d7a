"""A level-triggered work queue: keys that need a look, each looked at by one worker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from http import HTTPStatus
from typing import Generic, TypeVar

from tailrace.kube.client import ApiError

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
FIRST_DELAY = 0.1
LAST_DELAY = 60.0
RIGHTS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class WorkQueue(Generic[K]):
    """Calls ``work(key)`` for every key that was added, again after an error with growing delay.

    ``work`` returns seconds after which to look again, or None. A key that is added while its work runs is looked at
    once more afterwards; a key added several times is looked at once.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 4,
        last_delay: float = LAST_DELAY,
    ) -> None:
        self._name = name
        self._work = work
        self._workers = workers
        self._last_delay = last_delay
        self._waiting: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._refused: dict[K, str] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        """Have a look at this key as soon as a worker is free."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.put_nowait(key)

    def offer(self, key: K) -> None:
        """Have a look at this key, but leave it alone while it waits for its next try after an error."""
        if key not in self._failures:
            self.add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have a look at this key in a while; an earlier appointment stands."""
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if known and known.when() <= loop.time() + seconds:
            return
        if known:
            known.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._serve())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    async def _serve(self) -> None:
        while True:
            key = await self._waiting.get()
            self._queued.discard(key)
            self._running.add(key)
            try:
                await self._look(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _look(self, key: K) -> None:
        try:
            later = await self._work(key)
        except ApiError as error:
            self._failed(key, error)
        except Exception as error:
            log.exception("%s %s failed", self._name, key)
            self._failed(key, error)
        else:
            self._failures.pop(key, None)
            if self._refused.pop(key, None):
                log.info("%s %s: goes well again", self._name, key)
            if later is not None:
                self.add_after(key, later)

    def _failed(self, key: K, error: Exception) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_DELAY * 2.0 ** min(failures, 16), self._last_delay)
        self._tell(key, error, delay)
        self.add_after(key, delay)

    def _tell(self, key: K, error: Exception, delay: float) -> None:
        if not isinstance(error, ApiError) or error.status not in RIGHTS:
            log.info("%s %s: %s; next look in %.1f s", self._name, key, error, delay)
        elif self._refused.get(key) != str(error):
            self._refused[key] = str(error)
            log.warning(
                "%s %s: %s; it is tried again until it is allowed: see `tailrace doctor`", self._name, key, error
            )
