"""The way to the API server, against one that answers whatever a test wants."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio import client
from tests.kube.apiserver import serving

from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError


class Server:
    """An API server that answers everything with the same body, or with one after the other, and notes the methods."""

    def __init__(self) -> None:
        self.body = b"{}"
        self.bodies: list[bytes] = []
        self.methods: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer; for an aiohttp server."""
        self.methods.append(request.method)
        return web.Response(body=self.bodies.pop(0) if self.bodies else self.body, content_type="application/json")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with serving(server.answer) as api:
        yield api


GARBLED = [b"", b"<html>502</html>", b'{"items": [', b"[]", b"null"]


@pytest.mark.parametrize("body", GARBLED)
async def test_an_answer_that_is_no_object_is_an_api_error_that_tells_nothing(
    server: Server, api: Api, body: bytes
) -> None:
    server.body = body
    with pytest.raises(ApiError, match="no object") as refused:
        await api.list_all(objects.PODS)
    assert refused.value.status == 0


async def test_what_we_are_known_by_is_not_said_when_the_answer_is_no_http() -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/9 what?\r\n\r\n")
        writer.close()

    heads: list[bytes] = []
    far = await asyncio.start_server(rubbish, "127.0.0.1", 0)
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{far.sockets[0].getsockname()[1]}"
    configuration.api_key["BearerToken"] = "Bearer sesame"
    api = Api(configuration)
    with pytest.raises(ApiError) as refused:
        await api.get(objects.NODES, None, "n")
    await api.close()
    far.close()
    await far.wait_closed()
    assert b"sesame" in heads[0]
    assert "sesame" not in str(refused.value)
    assert "ClientResponseError: 400" in str(refused.value)


async def test_an_object_without_items_is_not_an_empty_list(server: Server, api: Api) -> None:
    server.body = b"{}"
    with pytest.raises(ApiError, match="no list"):
        await api.list_all(objects.PODS)
    server.body = b'{"items": null, "metadata": {"resourceVersion": "7"}}'
    assert (await api.list_all(objects.PODS)).version == "7"


async def test_a_list_keeps_of_every_object_of_every_page_what_it_is_told_to(server: Server, api: Api) -> None:
    server.bodies = [
        b'{"items": [{"kept": 1, "left": 2}], "metadata": {"continue": "more"}}',
        b'{"items": [{"kept": 3}], "metadata": {"resourceVersion": "7"}}',
    ]
    listing = await api.list_all(objects.PODS, trim=lambda document: {"kept": document["kept"]})
    assert (listing.items, listing.version) == (({"kept": 1}, {"kept": 3}), "7")


@pytest.mark.parametrize("line", [b"<html>\n", b'{"type": "ADDED"}\n', b'{"object": {}}\n', b"7\n"])
async def test_a_line_of_a_watch_that_is_no_event_is_an_api_error(server: Server, api: Api, line: bytes) -> None:
    server.body = line
    with pytest.raises(ApiError) as refused:
        _ = [change async for change in api.watch(objects.PODS, None, version="1")]
    assert refused.value.reason == "Garbled"


async def test_who_may_not_write_any_more_writes_nothing_and_reads_on(server: Server, api: Api) -> None:
    may = [True, False]
    fenced = api.fenced(lambda: may.pop(0))
    await fenced.patch(objects.PODS, "ns", "a", {})
    with pytest.raises(ApiError, match="left to the replica that leads now"):
        await fenced.patch(objects.PODS, "ns", "a", {})
    await fenced.get(objects.PODS, "ns", "a")
    await api.patch(objects.PODS, "ns", "a", {})
    assert server.methods == ["PATCH", "GET", "PATCH"]
