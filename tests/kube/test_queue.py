"""The work queue: one worker a key, nothing lost, back-off."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tailrace.kube.client import ApiError
from tailrace.kube.queue import WorkQueue


@asynccontextmanager
async def running(work: Callable[[str], Awaitable[float | None]]) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue("test", work)
    task = asyncio.create_task(queue.run())
    yield queue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more() -> None:
    done, go = list[str](), asyncio.Event()

    async def work(key: str) -> None:
        await go.wait()
        done.append(key)

    async with running(work) as queue:
        queue.add("a")
        await asyncio.sleep(0.01)
        for _ in range(3):
            queue.add("a")
        go.set()
        await until(lambda: len(done) == 2)
        await asyncio.sleep(0.02)
    assert done == ["a", "a"]


async def test_a_key_is_never_worked_on_twice_at_once_while_others_go_on() -> None:
    busy, seen, go = set[str](), set[str](), asyncio.Event()

    async def work(key: str) -> None:
        assert key not in busy
        busy.add(key)
        seen.add(key)
        await go.wait()
        busy.discard(key)

    async with running(work) as queue:
        for key in ("a", "b", "a", "b"):
            queue.add(key)
        await until(lambda: seen == {"a", "b"})
        go.set()


async def test_work_that_fails_is_tried_again_and_the_worker_lives_on() -> None:
    errors = [ApiError(500, "InternalError", "x"), ValueError("y")]
    done = list[str]()

    async def work(key: str) -> None:
        if errors:
            raise errors.pop()
        done.append(key)

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: done == ["a"])


async def test_work_may_ask_to_be_looked_at_again_later() -> None:
    looks = list[str]()

    async def work(key: str) -> float | None:
        looks.append(key)
        return 0.01 if len(looks) < 3 else None

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: len(looks) == 3)


async def test_the_earlier_of_two_appointments_stands() -> None:
    looks = list[str]()

    async def work(key: str) -> None:
        looks.append(key)

    async with running(work) as queue:
        queue.add_after("a", 60)
        queue.add_after("a", 0.01)
        queue.add_after("a", 60)
        await until(lambda: looks == ["a"])


async def test_a_lost_right_is_a_warning_once_until_it_changes_or_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.kube.queue.FIRST_DELAY", 0.001)
    caplog.set_level(logging.INFO)
    patch, status = ApiError(403, "Forbidden", "cannot patch"), ApiError(403, "Forbidden", "cannot update status")
    errors, done = [patch, patch, ApiError(0, "Disconnected", "x"), patch, status, status], list[str]()

    async def work(key: str) -> None:
        if errors:
            raise errors.pop(0)
        done.append(key)

    async with running(work) as queue:
        for times in (1, 2):
            queue.add("a")
            await until(lambda times=times: len(done) == times)  # type: ignore[misc]
    told = [(record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records]
    assert told == [
        ("WARNING", "test a: 403 Forbidden: cannot patch"),
        ("INFO", "test a: unreachable Disconnected: x"),
        ("WARNING", "test a: 403 Forbidden: cannot update status"),
        ("INFO", "test a: goes well again"),
    ]
    assert "`tailrace doctor`" in caplog.messages[0]
