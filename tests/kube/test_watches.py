from __future__ import annotations

import asyncio
import getpass
import threading

import pytest

from tailrace.kube import objects
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
