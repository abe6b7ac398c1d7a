"""Drains by hand are written down, whatever comes between, and an end of one is not overtaken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from tests.app.waiting import eventually
from tests.kube.apiserver import ApiServer, Document, RefusedError, serving
from tests.kube.documents import pod

from tailrace.kube import objects
from tailrace.kube.client import Listing
from tailrace.kube.cordons import Cordons
from tailrace.kube.view import KINDS, View
from tailrace.link import Cordon

DRAIN, RESUME = Cordon("uid-a", draining=True, generation=7), Cordon("uid-a", draining=False, generation=8)


class Marking:
    """A view that has seen nothing yet, and the last words on its pods."""

    def __init__(self, cluster: ApiServer) -> None:
        self.cluster = cluster
        self.settled: list[Cordon] = []
        self.view = View(emit=lambda _: None, touched=lambda _: None, strayed=lambda _: None, measure=lambda *_: None)
        self.cordons: Cordons

    async def written(self, cordon: Cordon) -> None:
        """Note a word that is settled."""
        self.settled.append(cordon)

    def list(self, *pods: Document) -> None:
        """Let a full list of pods come in."""
        self.view.on_lists((kind, None, Listing(pods if kind is objects.PODS else (), "2000")) for kind in KINDS)
        self.cordons.resynced()

    @property
    def mark(self) -> str | None:
        """Return the mark on the pod as it is stored."""
        stored = self.cluster.pod() or {"metadata": {}}
        mark: str | None = stored["metadata"].get("annotations", {}).get("tailrace.dev/draining")
        return mark


@asynccontextmanager
async def working(cluster: ApiServer) -> AsyncIterator[Marking]:
    async with serving(cluster.answer) as api:
        found = Marking(cluster)
        found.cordons = Cordons(api, found.view, found.written)
        task = asyncio.create_task(found.cordons.run())
        try:
            yield found
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def cluster() -> ApiServer:
    found = ApiServer()
    found.put(pod())
    return found


def refuse_writes(cluster: ApiServer, status: int, times: int) -> None:
    """Answer the next patches with this status."""
    left = [status] * times

    def refuse(call: str) -> None:
        if call.startswith("PATCH") and left:
            raise RefusedError(left.pop())

    cluster.trouble = refuse


@pytest.mark.parametrize("status", [403, 409, 500])
async def test_a_drain_by_hand_is_written_though_the_first_tries_fail(
    cluster: ApiServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_writes(cluster, status, 2)
    async with working(cluster) as marking:
        marking.list(pod())
        marking.cordons.take(DRAIN)
        await eventually(lambda: marking.settled)
        assert (marking.mark, marking.settled) == ("7", [DRAIN])
    assert caplog.text.count("the drain by hand of pod ns/a is not written down yet") == 2


async def test_a_word_on_a_pod_that_is_not_known_yet_waits_for_the_first_list(cluster: ApiServer) -> None:
    async with working(cluster) as marking:
        marking.cordons.take(DRAIN)
        await asyncio.sleep(0.05)
        assert (marking.mark, marking.settled) == (None, [])
        marking.list(pod())
        await eventually(lambda: marking.settled)
        assert marking.mark == "7"


async def test_a_word_on_a_pod_that_no_list_knows_is_settled(cluster: ApiServer) -> None:
    async with working(cluster) as marking:
        marking.cordons.take(DRAIN)
        marking.list()
        await eventually(lambda: marking.settled)
        assert cluster.calls == []


async def test_a_drain_that_is_tried_again_is_not_written_after_its_end(cluster: ApiServer) -> None:
    refuse_writes(cluster, 500, 1)
    async with working(cluster) as marking:
        marking.list(pod())
        marking.cordons.take(DRAIN)
        await eventually(lambda: "PATCH" in cluster.asked())
        marking.cordons.take(RESUME)
        await eventually(lambda: marking.settled)
        await asyncio.sleep(0.3)
        assert (marking.mark, set(marking.settled)) == (None, {RESUME})


async def test_a_resume_follows_the_drain_that_is_being_written(cluster: ApiServer) -> None:
    async with working(cluster) as marking:
        marking.list(pod())
        marking.cordons.take(DRAIN)
        await eventually(cluster.asked)
        marking.cordons.take(RESUME)
        await eventually(lambda: RESUME in marking.settled)
        assert marking.mark is None


async def test_a_drain_that_comes_after_its_own_end_is_settled_and_not_written(cluster: ApiServer) -> None:
    async with working(cluster) as marking:
        marking.list(pod())
        marking.cordons.take(RESUME)
        await eventually(lambda: marking.settled)
        marking.cordons.take(DRAIN)
        await eventually(lambda: DRAIN in marking.settled)
        assert marking.mark is None


async def test_a_resume_waits_out_an_api_server_that_is_away(cluster: ApiServer) -> None:
    cluster.put(pod(annotations={"tailrace.dev/draining": "7"}))
    refuse_writes(cluster, 503, 3)
    async with working(cluster) as marking:
        marking.list(pod())
        marking.cordons.take(RESUME)
        await eventually(lambda: marking.settled)
        assert marking.mark is None


async def test_a_word_that_is_repeated_is_written_once_and_settled_each_time(cluster: ApiServer) -> None:
    async with working(cluster) as marking:
        marking.list(pod())
        for _ in range(2):
            marking.cordons.take(DRAIN)
            await eventually(lambda: marking.settled)
            marking.settled.clear()
        assert cluster.asked().count("PATCH") == 1


async def test_another_pod_of_the_same_name_is_left_alone(cluster: ApiServer) -> None:
    cluster.put(pod(uid="another"))
    async with working(cluster) as marking:
        marking.list(pod())
        marking.cordons.take(DRAIN)
        await eventually(lambda: marking.settled)
        assert cluster.asked() == ["GET"]
