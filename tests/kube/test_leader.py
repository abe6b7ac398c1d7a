"""What the leader writes, and what it leaves to others, against an API server in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.app.waiting import eventually
from tests.kube.apiserver import ApiServer, Document, serving
from tests.kube.documents import pod, server

from tailrace.core.model import DrainOutcome, DrainReason, Release
from tailrace.kube import objects
from tailrace.kube.client import Api
from tailrace.kube.leader import Leader
from tailrace.kube.view import View
from tailrace.link import Desired
from tailrace.settings import Settings

DELETED: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:10:00Z", "deletionGracePeriodSeconds": 30}
RELEASE = Release("uid-a", DrainReason.DELETE, DrainOutcome.DRAINED, 100.0, 101.0, 2, 2, 0)


class World:
    """An API server in memory, a view of it, and a leader that works until the block ends."""

    def __init__(self, api: Api, cluster: ApiServer, leading: Callable[[], bool]) -> None:
        self.cluster = cluster
        self.view = View(
            emit=lambda _: None,
            touched=self._touched,
            strayed=self._strayed,
            measure=lambda *_: None,
        )
        self.leader = Leader(api, self.view, Settings(), identity="me", explain=lambda *_: "", leading=leading)

    def _touched(self, key: str) -> None:
        self.leader.touch(key)

    def _strayed(self, document: Document) -> None:
        self.leader.stray(document)

    def see(self, document: Document, change: str | None = "MODIFIED") -> None:
        """Let the watch show a pod."""
        self.view.on_event(objects.PODS, change, document)

    def events(self) -> list[str]:
        """Return the reasons of the Events about pods."""
        found = [each for path, each in self.cluster.stored.items() if "/events/" in path]
        return [each["reason"] for each in found if each["regarding"]["kind"] == "Pod"]


@asynccontextmanager
async def world(cluster: ApiServer, leading: Callable[[], bool] = lambda: True) -> AsyncIterator[World]:
    async with serving(cluster.answer) as api:
        found = World(api, cluster, leading)
        found.view.on_event(objects.SERVERS, "ADDED", server(endpoints=[{"address": "h:1"}]))
        working = asyncio.create_task(found.leader.run())
        try:
            yield found
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


@pytest.fixture
def cluster() -> ApiServer:
    return ApiServer()


async def test_a_lease_that_runs_out_before_the_write_leaves_the_write_to_others(cluster: ApiServer) -> None:
    cluster.put(pod(**DELETED))
    asked = iter([True])
    async with world(cluster, lambda: next(asked, False)) as here:
        here.see(pod(**DELETED))
        here.leader.desire(Desired((RELEASE,), ()))
        await asyncio.sleep(0.3)
        assert cluster.writes() == []
        asked = iter([True] * 100)
        here.leader.lead(leading=True)
        await eventually(lambda: cluster.pod() is None)
