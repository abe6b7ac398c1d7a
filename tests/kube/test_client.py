"""The way to the API server, against one that answers whatever a test wants."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio import client

from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError


class Server:
    """An API server that answers everything with the same body, and counts what it was asked."""

    def __init__(self) -> None:
        self.body = b"{}"
        self.methods: list[str] = []
        self.host = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer; for an aiohttp server."""
        self.methods.append(request.method)
        return web.Response(body=self.body, content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    runner = web.ServerRunner(web.Server(found.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    configuration = client.Configuration()
    configuration.host = server.host
    api = Api(configuration)
    yield api
    await api.close()


GARBLED = [b"", b"<html>502</html>", b'{"items": [', b"[]", b"null"]


@pytest.mark.parametrize("body", GARBLED)
async def test_an_answer_that_is_no_object_is_an_api_error_that_tells_nothing(
    server: Server, api: Api, body: bytes
) -> None:
    server.body = body
    with pytest.raises(ApiError, match="no object") as refused:
        await api.list_all(objects.PODS)
    assert refused.value.status == 0


async def test_an_object_without_items_is_not_an_empty_list(server: Server, api: Api) -> None:
    server.body = b"{}"
    with pytest.raises(ApiError, match="no list"):
        await api.list_all(objects.PODS)
    server.body = b'{"items": null, "metadata": {"resourceVersion": "7"}}'
    assert (await api.list_all(objects.PODS)).version == "7"


@pytest.mark.parametrize("line", [b"<html>\n", b'{"type": "ADDED"}\n', b'{"object": {}}\n', b"7\n"])
async def test_a_line_of_a_watch_that_is_no_event_is_an_api_error(server: Server, api: Api, line: bytes) -> None:
    server.body = line
    with pytest.raises(ApiError) as refused:
        _ = [change async for change in api.watch(objects.PODS, None, version="1")]
    assert refused.value.reason == "Garbled"
