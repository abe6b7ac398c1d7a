from __future__ import annotations

import asyncio
import getpass
import sys
import threading
from collections.abc import Awaitable, Iterator
from contextlib import suppress

import pytest
from tests.app.waiting import eventually

from tailrace.kube import handlers, objects
from tailrace.kube.handlers import Watches


async def test_watches_start_in_a_container_whose_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = threading.Event()

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    async def load() -> None:
        reached.set()
        watches.stop()
        raise ConnectionError("no cluster here")

    monkeypatch.setattr(getpass, "getuser", nobody)
    watches = Watches(load, ["default"], lambda *_: None)  # type: ignore[arg-type]
    watches.start([objects.PODS])
    assert await asyncio.to_thread(reached.wait, 10)


async def test_a_kopf_that_does_not_end_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handlers, "ENDING_SECONDS", 0.05)
    monkeypatch.setattr(handlers, "FIRST_RESTART_SECONDS", 0.01)
    lives: list[threading.Event] = []
    over = threading.Event()

    async def hang(_: Watches, ended: threading.Event) -> None:
        lives.append(ended)
        ended.set()
        while not over.is_set():  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)

    monkeypatch.setattr(Watches, "_operate", hang)
    watches = Watches(NotImplemented, [], lambda *_: None)
    watches.start(())
    try:
        await eventually(lambda: len(lives) >= 2)
    finally:
        watches.stop()
        over.set()
    assert "is left behind" in caplog.text


@pytest.fixture
def fast_switches() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run(work: Awaitable[None]) -> None:
    """Run a coroutine that waits for nothing, here and now."""
    with suppress(StopIteration):
        work.__await__().send(None)


async def test_events_of_several_threads_all_arrive_whenever_they_come(fast_switches: None) -> None:
    """A burst on an empty queue once left nobody to deliver it, nor all that came later: a blind replica."""
    threads, rounds = 4, 1000
    seen: list[str] = []
    watches = Watches(NotImplemented, [], lambda _kind, _change, pod: seen.append(pod["metadata"]["uid"]))
    watches._loop = asyncio.get_running_loop()
    handle = watches._handler(objects.PODS)
    together = threading.Barrier(threads, timeout=10)

    def send(thread: int) -> None:
        for number in range(rounds):
            together.wait()
            one = {"type": "MODIFIED", "object": {"metadata": {"uid": f"{thread}-{number}"}}}
            run(handle(one))

    await asyncio.gather(*(asyncio.to_thread(send, thread) for thread in range(threads)))
    await eventually(lambda: len(seen) == threads * rounds)
    assert len(set(seen)) == threads * rounds
