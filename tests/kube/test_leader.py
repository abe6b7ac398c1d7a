"""What the leader writes, and what it leaves to others, against an API server in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.app.waiting import eventually
from tests.kube.apiserver import ApiServer, Document, RefusedError, serving
from tests.kube.documents import pod, server

from tailrace.core.model import DrainOutcome, DrainReason, EndpointState, Release
from tailrace.kube import leader, objects
from tailrace.kube.client import Api
from tailrace.kube.leader import Leader
from tailrace.kube.view import View
from tailrace.link import Desired, EndpointReport
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
        assert cluster.asked() == []
        asked = iter([True] * 100)
        here.leader.lead(leading=True)
        await eventually(lambda: cluster.pod() is None)


async def test_reports_of_endpoints_stand_until_others_are_told(cluster: ApiServer) -> None:
    status = "/apis/inference.tailrace.dev/v1alpha1/namespaces/ns/inferenceservers/one/status"
    cluster.stored[status] = server(endpoints=[{"address": "h:1"}])
    report = EndpointReport("ns/one/h:1", "ns/one", EndpointState.READY, 7, gate_seen=False)
    async with world(cluster) as here:
        here.leader.desire(Desired((), (report,)))
        here.leader.desire(Desired((), None))
        await eventually(lambda: "status" in cluster.stored[status])
        assert cluster.stored[status]["status"]["inFlight"] == 7


async def test_the_grade_of_a_server_is_told_and_taken_back(
    cluster: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "REPORT_SECONDS", 0.01)
    path = "/apis/inference.tailrace.dev/v1alpha1/namespaces/ns/inferenceservers/one/status"
    cluster.stored[path] = server(endpoints=[{"address": "h:1"}])
    async with world(cluster) as here:
        here.leader._statuses._counter_seconds = 0.05
        await eventually(lambda: cluster.stored[path].get("status", {}).get("ready"))
        await asyncio.sleep(0.7)  # until nothing else has it look again
        here.leader.desire(Desired((), None, grades=(("ns/one", "Poor"),)))
        await eventually(lambda: cluster.stored[path]["status"].get("quality") == "Poor")
        here.leader.desire(Desired((), None))
        await eventually(lambda: cluster.stored[path]["status"].get("quality") is None)


# What is told of a drain


async def release(cluster: ApiServer) -> list[str]:
    """Let a new leader see the pod as deleted and release it; return the Events about pods since the beginning."""
    async with world(cluster) as here:
        here.see(pod(**DELETED))
        begun = len(cluster.calls)
        here.leader.desire(Desired((RELEASE,), ()))
        await eventually(lambda: len(cluster.calls) > begun)
        await quiet(cluster)
        return here.events()


async def quiet(cluster: ApiServer) -> None:
    """Return when nothing has been asked for a moment."""
    seen = -1
    while seen != len(cluster.calls):
        seen = len(cluster.calls)
        await asyncio.sleep(0.3)


async def test_a_new_leader_does_not_tell_again_of_a_drain_that_another_has_ended(cluster: ApiServer) -> None:
    cluster.put(pod(finalizers=["tailrace.dev/drain", "other/one"], **DELETED))
    assert await release(cluster) == ["Drained"]
    assert await release(cluster) == ["Drained"]
    assert (cluster.pod() or {})["metadata"]["finalizers"] == ["other/one"]


async def test_a_drain_is_told_though_the_answer_to_its_last_write_was_lost(cluster: ApiServer) -> None:
    cluster.put(pod(finalizers=["tailrace.dev/drain", "other/one"], **DELETED))

    def lose(call: str) -> None:
        if call == "PATCH a":
            raise RefusedError(504)

    cluster.after = lose
    assert await release(cluster) == ["Drained"]
    assert cluster.asked() == ["PATCH", "PATCH", "GET"]


# Pods that lost our label


def unlabelled(**meta: Any) -> Document:  # noqa: ANN401
    return pod(version=7, labels={}, **meta)


@pytest.mark.parametrize("meta", [{}, DELETED])
async def test_a_pod_that_lost_our_label_is_freed_whether_it_lives_on_or_not(
    cluster: ApiServer, meta: Document
) -> None:
    cluster.put(unlabelled(finalizers=["tailrace.dev/drain", "other/one"], **meta))
    async with world(cluster) as here:
        here.see(pod(**meta))
        here.see(pod(version=7, **meta), "DELETED")
        await eventually(lambda: (cluster.pod() or {})["metadata"]["finalizers"] == ["other/one"])


async def test_a_pod_whose_deletion_is_over_costs_one_read_and_no_write(cluster: ApiServer) -> None:
    async with world(cluster) as here:
        here.see(pod(**DELETED))
        here.see(pod(version=7, **DELETED), "DELETED")
        await eventually(cluster.asked)
        here.leader.resynced()
        await asyncio.sleep(0.1)
        assert cluster.asked() == ["GET"]


async def test_a_pod_that_lost_our_label_is_freed_by_the_one_who_leads_next(cluster: ApiServer) -> None:
    cluster.put(unlabelled())
    leading = False
    async with world(cluster, lambda: leading) as here:
        here.see(pod())
        here.see(pod(version=7), "DELETED")
        here.leader.resynced()
        await eventually(cluster.asked)
        await asyncio.sleep(0.1)
        assert cluster.asked() == ["GET"]
        leading = True
        here.leader.lead(leading=True)
        await eventually(lambda: (cluster.pod() or {})["metadata"]["finalizers"] == [])


async def test_a_standby_forgets_a_pod_that_another_has_freed(cluster: ApiServer) -> None:
    cluster.put(unlabelled(finalizers=[]))
    async with world(cluster, lambda: False) as here:
        here.see(pod())
        here.see(pod(version=7), "DELETED")
        here.leader.resynced()
        await eventually(cluster.asked)
        here.leader.resynced()
        await asyncio.sleep(0.1)
        assert cluster.asked() == ["GET"]


async def test_a_pod_that_lost_our_label_is_freed_at_the_next_list_when_the_first_read_failed(
    cluster: ApiServer,
) -> None:
    cluster.put(unlabelled())

    def fail(_: str) -> None:
        raise RefusedError(503)

    cluster.trouble = fail
    async with world(cluster) as here:
        here.see(pod())
        here.see(pod(version=7), "DELETED")
        await eventually(cluster.asked)
        cluster.trouble = lambda _: None
        here.leader.resynced()
        await eventually(lambda: (cluster.pod() or {})["metadata"]["finalizers"] == [])
