"""How coroutines wait for the core: it calls back once, any number of waiters wake."""

from __future__ import annotations

import asyncio


class Changes:
    """A revision that many may wait on. ``notify`` is cheap and may be called at any rate from the loop's thread."""

    def __init__(self) -> None:
        self.revision = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Say that something has changed."""
        self.revision += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout: float, since: int | None = None) -> bool:  # noqa: ASYNC109 - the timeout is an answer
        """Wait ``timeout`` seconds at most for a change after revision ``since`` (default: now); say if one came."""
        if since is not None and since != self.revision:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout)
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True
