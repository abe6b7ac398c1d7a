"""A thin way to the API server: paths and plain dicts in, plain dicts out, one kind of error.

The generated client does what is hard (credentials, their renewal, TLS); its models are left out, because building
them costs more than decoding the answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from kubernetes.aio import client, config

from tailrace import collector

Document = dict[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
PAGE = 100
"""Objects a page: what a page takes in memory while it is read stays with the process, 40 MiB at 500 large pods."""

MANAGER = "tailrace"
RETRY_DELAYS = (0.1, 0.3, 1.0)
CALL_SECONDS = 10.0
"""For a whole call, and for silence within a long one: a network that forgets connections tells nobody."""

LIST_SECONDS = 60.0
WATCH_IDLE_SECONDS = 90.0
"""A watch with bookmarks hears something every minute; a silent one is dead."""

_NEVER_SENT = ("ConnectFailed", "NotLeading")


class PatchType(StrEnum):
    """The two ways to say what changes; the value is the content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API server's paths name it. ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Return the path of all objects, of those of a namespace, of one object, or of a part of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        parts = [root + where, self.plural, quote(name), subresource]
        return "/".join(part for part in parts if part)


class ApiError(Exception):
    """The API server refused, or could not be asked (status 0). ``causes`` are (field path, message) pairs."""

    def __init__(
        self, status: int, reason: str, message: str, causes: tuple[tuple[str, str], ...] = (), retry_after: float = 0
    ) -> None:
        super().__init__(f"{status or 'unreachable'} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after

    @property
    def unsure(self) -> bool:
        """Whether a write may have been carried out all the same: its answer was lost, or is the server's trouble."""
        trouble = self.status == 0 or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return trouble and self.reason not in _NEVER_SENT

    @property
    def gone(self) -> bool:
        """Whether the object does not exist."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def stale(self) -> bool:
        """Whether a guard failed: the object is not, or no longer, what the caller took it for."""
        return self.status in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole list, all its pages: the objects and the resourceVersion it is the truth of."""

    items: tuple[Document, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: Document = field(repr=False)


async def load(kubeconfig: str | None) -> client.Configuration:
    """Read credentials from the file; without one those of the pod's service account, or what $KUBECONFIG names."""
    configuration = client.Configuration()
    kubeconfig = kubeconfig or _other_kubeconfig()
    if kubeconfig is None:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
    return configuration


def _other_kubeconfig() -> str | None:
    return None if SERVICE_ACCOUNT.exists() else os.environ.get("KUBECONFIG")


class Api:
    """The API server. Every method raises ``ApiError`` and nothing else (but a cancellation). ``server``: its URL."""

    def __init__(self, configuration: client.Configuration) -> None:
        self.server = str(configuration.host)
        self._client = client.ApiClient(configuration)
        self.may_write: Callable[[], bool] = lambda: True

    def fenced(self, may_write: Callable[[], bool]) -> Api:
        """Return the same connections for one who asks before every single write; refused is NotLeading, status 0."""
        fenced = copy(self)
        fenced.may_write = may_write
        return fenced

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def version(self) -> Document:
        """Return what the API server says of its own version: ``major``, ``minor``, ``gitVersion``."""
        return await self._call("GET", "/version")

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Document:
        """Return one object."""
        return await self._call("GET", resource.path(namespace, name))

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        trim: Callable[[Document], Document] = lambda document: document,
    ) -> Listing:
        """Return all objects, by pages and read consistently. Fails as a whole when one page fails.

        ``trim`` says what to keep of an object. A whole list of untrimmed ones takes more memory than all else here.
        """
        items: list[Document] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            meta = await self._page(resource.path(namespace), query, lambda document: items.append(trim(document)))
            if not meta.get("continue"):
                return Listing(tuple(items), str(meta.get("resourceVersion", "")))
            query["continue"] = meta["continue"]

    async def _page(self, path: str, query: dict[str, str], take: Callable[[Document], None]) -> Document:
        """Read one page; return its metadata. Nothing else of it is left when the next one is read."""
        page = await self._call("GET", path, query=query, seconds=LIST_SECONDS)
        if "items" not in page:
            raise ApiError(0, "Garbled", f"the answer is no list: {str(page)[:200]}")
        for document in page["items"] or ():
            take(document)
        meta: Document = page.get("metadata", {})
        return meta

    async def create(
        self, resource: Resource, namespace: str | None, body: Document, *, subresource: str = "", dry_run: bool = False
    ) -> Document:
        """Create an object; it must not exist."""
        query = _write_query(dry_run=dry_run)
        return await self._call("POST", resource.path(namespace, "", subresource), query=query, body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Document | list[Document],
        *,
        how: PatchType = PatchType.MERGE,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Change an object. Put a guard into the body: a ``test`` operation, or uid and resourceVersion."""
        path, query = resource.path(namespace, name, subresource), _write_query(dry_run=dry_run)
        return await self._call("PATCH", path, query=query, body=body, content_type=how.value)

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: Document) -> Document:
        """Replace an object; the resourceVersion in the body is the guard."""
        return await self._call("PUT", resource.path(namespace, name), query=_write_query(dry_run=False), body=body)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str, version: str = ""
    ) -> Document:
        """Delete the object if it is still the one with this uid and, when given, of this resourceVersion."""
        guard = {"uid": uid} | ({"resourceVersion": version} if version else {})
        return await self._call("DELETE", resource.path(namespace, name), body={"preconditions": guard})

    async def watch(
        self, resource: Resource, namespace: str | None, *, version: str, labels: str = ""
    ) -> AsyncIterator[Change]:
        """Yield what changes after ``version``, bookmarks included, until the server ends the watch."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"labelSelector": labels} if labels else {}
        response = await self._open(
            "GET", resource.path(namespace), query=query, body=None, content_type="application/json", seconds=None
        )
        try:
            async for line in _lines(response):
                yield _change(_document(line))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, "Disconnected", _words(error)) from error
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        seconds: float = CALL_SECONDS,
    ) -> Document:
        async def once() -> Document:
            if method != "GET" and not self.may_write():
                raise ApiError(0, "NotLeading", f"{method} {path} is left to the replica that leads now")
            response = await self._open(
                method, path, query=query or {}, body=body, content_type=content_type, seconds=seconds
            )
            try:
                answer = await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ApiError(0, "Disconnected", _words(error)) from error
            return _document(answer)

        return await _with_retries(once)

    async def _open(
        self, method: str, path: str, *, query: dict[str, str], body: object, content_type: str, seconds: float | None
    ) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(
            total=seconds,
            sock_connect=CALL_SECONDS,
            sock_read=WATCH_IDLE_SECONDS if seconds is None else CALL_SECONDS,
        )
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                auth_settings=["BearerToken"],
            )
            answer = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                request[0], request[1], headers=request[2], body=body, _request_timeout=timeout
            )
            response: aiohttp.ClientResponse = answer.response
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _refused(response.status, await _error_body(response), response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = "ConnectFailed" if isinstance(error, aiohttp.ClientConnectorError) else "Disconnected"
            raise ApiError(0, reason, _words(error)) from error
        return response


def _words(error: Exception) -> str:
    """Return what went wrong. The error's own notation may hold the request's head, and with it our token."""
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


async def _with_retries(once: Callable[[], Awaitable[Document]]) -> Document:
    for delay in RETRY_DELAYS:
        try:
            return await once()
        except ApiError as error:
            if not _worth_retrying(error):
                raise
            await asyncio.sleep(max(delay, min(error.retry_after, CALL_SECONDS)))
    return await once()


def _worth_retrying(error: ApiError) -> bool:
    """Only where nothing can have happened: the connection was not made, or the server said later."""
    return error.reason == "ConnectFailed" or error.status == HTTPStatus.TOO_MANY_REQUESTS


def _write_query(*, dry_run: bool) -> dict[str, str]:
    # A trial is strict, so that a misspelt field of a template is told and not dropped.
    trial = {"dryRun": "All", "fieldValidation": "Strict"}
    return {"fieldManager": MANAGER, **(trial if dry_run else {"fieldValidation": "Ignore"})}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of a stream; an object may be larger than any buffer that splits lines itself."""
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _document(body: bytes) -> Document:
    """Decode an object; whatever else comes (a proxy's page, half an answer) tells nothing of the cluster."""
    try:
        with collector.paused():
            document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ApiError(0, "Garbled", f"the answer is no object: {_start(body)}")
    return document


def _change(event: Document) -> Change:
    what, about = event.get("type"), event.get("object")
    if not isinstance(what, str) or not isinstance(about, dict):
        raise ApiError(0, "Garbled", f"an event of a watch has no type or no object: {str(event)[:200]}")
    if what == "ERROR":
        raise _refused(int(about.get("code") or 0), about)
    return Change(what, about)


def _start(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")


async def _error_body(response: aiohttp.ClientResponse) -> Document:
    body = await response.read()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": _start(body)}
    return document if isinstance(document, dict) else {}


def _refused(status: int, body: Document, retry_after: str | None = None) -> ApiError:
    details = body.get("details") or {}
    causes = tuple(
        (str(cause.get("field", "")), str(cause.get("message", ""))) for cause in details.get("causes") or ()
    )
    wait = retry_after if retry_after and retry_after.isdecimal() else details.get("retryAfterSeconds") or 0
    return ApiError(status, str(body.get("reason") or ""), str(body.get("message") or ""), causes, float(wait))
