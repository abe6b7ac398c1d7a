"""What `tailrace status` reads of a cluster: its InferenceServers, or why there are none to read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.kube.apiserver import serving

from tailrace.kube.chores import Chores, MissingDefinitionError, UnreachableError


@asynccontextmanager
async def cluster(monkeypatch: pytest.MonkeyPatch, answer: web.Response) -> AsyncIterator[Chores]:
    async def respond(_: web.BaseRequest) -> web.Response:
        return answer

    async with serving(respond) as api:
        monkeypatch.setattr("tailrace.kube.chores.Api", lambda _: api)
        monkeypatch.setattr("tailrace.kube.chores.load", _nothing)
        yield Chores()


async def _nothing(_: object) -> None:
    return None


async def test_a_cluster_without_the_definition_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster(monkeypatch, web.Response(status=404, text="404 page not found\n")) as chores:
        with pytest.raises(MissingDefinitionError) as told:
            await chores.server_rows(None)
    assert "inferenceservers.inference.tailrace.dev is not installed" in str(told.value)
    assert "tailrace crds | kubectl apply" in str(told.value)


async def test_a_refusal_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(monkeypatch, web.Response(status=503, text="no\nserver\n")) as chores:
        with pytest.raises(UnreachableError, match=r"^503 : no server$"):
            await chores.server_rows(None)
