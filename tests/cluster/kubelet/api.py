"""A thin client of the API server: plain dicts in, plain dicts out."""

import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=90)
LINE_LIMIT = 8 << 20


class ApiError(Exception):
    """The API server refused a call: `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class Access:
    """Where the API server is and how to be let in."""

    server: str
    token: str
    authority: str
    """The certificate authority, PEM."""

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Access":
        """Read the only cluster and user of a kubeconfig written by `write_kubeconfig`."""
        document = yaml.safe_load(path.read_text())
        cluster = document["clusters"][0]["cluster"]
        token = document["users"][0]["user"]["token"]
        return cls(cluster["server"], token, _decode(cluster["certificate-authority-data"]))


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


class Api:
    """Calls to one API server over one session; use `Api.connect`."""

    def __init__(self, session: aiohttp.ClientSession, access: Access) -> None:
        self._session = session
        self.access = access

    @classmethod
    @asynccontextmanager
    async def connect(cls, access: Access) -> AsyncIterator["Api"]:
        """Open a session and close it at the end."""
        context = ssl.create_default_context(cadata=access.authority)
        async with aiohttp.ClientSession(
            base_url=access.server,
            connector=aiohttp.TCPConnector(ssl=context, limit=50),
            headers={"Authorization": f"Bearer {access.token}", "User-Agent": "tailrace-stand-in-kubelet"},
            timeout=REQUEST_TIMEOUT,
            read_bufsize=LINE_LIMIT,
        ) as session:
            yield cls(session, access)

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """Read one object or one list."""
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""
        return await self._call("POST", path, body=body)

    async def patch(self, path: str, body: Mapping[str, Any], kind: str = STRATEGIC_MERGE) -> dict[str, Any]:
        """Patch an object."""
        return await self._call("PATCH", path, body=body, content_type=kind)

    async def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Delete an object; `body` is the DeleteOptions."""
        return await self._call("DELETE", path, body=body)

    async def watch(self, path: str, **params: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of one watch until the server ends it."""
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": "300", **params}
        async with self._session.get(path, params=query, timeout=WATCH_TIMEOUT) as response:
            await _refuse_failure(response)
            async for line in response.content:
                yield orjson.loads(line)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(method, path, params=params, data=data, headers=headers) as response:
            await _refuse_failure(response)
            answer: dict[str, Any] = orjson.loads(await response.read())
            return answer


async def _refuse_failure(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        raise ApiError(response.status, (await response.text())[:500])
