from __future__ import annotations

import asyncio
import getpass
import threading

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
