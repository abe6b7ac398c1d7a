import asyncio
from collections.abc import Coroutine

import pytest

from tailrace.changes import Changes

SOON = 5.0


async def started(*waits: Coroutine[None, None, bool]) -> list[asyncio.Task[bool]]:
    """Return the waits as tasks that have begun to wait."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.sleep(0)
    return tasks


async def test_one_notification_wakes_every_waiter() -> None:
    changes = Changes()
    tasks = await started(*(changes.wait(SOON) for _ in range(100)))
    changes.notify()
    assert await asyncio.gather(*tasks) == [True] * 100


async def test_without_a_change_the_wait_ends_at_its_timeout_and_says_so() -> None:
    assert await Changes().wait(0.01) is False


async def test_a_change_before_the_wait_counts_only_for_those_who_name_an_older_revision() -> None:
    changes = Changes()
    seen = changes.revision
    changes.notify()
    assert await changes.wait(0.01) is False
    assert await changes.wait(0.0, since=seen) is True
    assert await changes.wait(0.01, since=changes.revision) is False


async def test_a_change_while_a_woken_waiter_works_is_not_missed() -> None:
    changes = Changes()
    (task,) = await started(changes.wait(SOON))
    changes.notify()
    seen = changes.revision
    changes.notify()
    assert await task is True
    assert await changes.wait(0.0, since=seen) is True


async def test_waiters_that_leave_do_not_keep_others_from_waking() -> None:
    changes = Changes()
    impatient, cancelled, patient = await started(changes.wait(0.01), changes.wait(SOON), changes.wait(SOON))
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await impatient is False
    changes.notify()
    assert await patient is True


async def test_waiters_that_have_left_are_forgotten() -> None:
    changes = Changes()
    for _ in range(10):
        await changes.wait(0.0)
    assert changes._waiters == set()


async def test_nobody_waiting_is_no_error() -> None:
    changes = Changes()
    for _ in range(1000):
        changes.notify()
    assert changes.revision == 1000
