"""An API server in memory behind a real socket: enough for get, list, create and guarded patches of single objects."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from tailrace.kube.client import Api

Document = dict[str, Any]
PLURALS = ("pods", "nodes", "deployments", "poddisruptionbudgets", "replicasets", "inferenceservers", "leases")


class RefusedError(Exception):
    """What the server answers instead of doing what it was asked."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ApiServer:
    """Holds objects by their path, and notes every call as ``METHOD name``.

    ``trouble`` may raise RefusedError before a call is carried out, and ``after`` once it is: then the answer is lost.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Document] = {}
        self.calls: list[str] = []
        self.trouble: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self._version = 1000

    def put(self, document: Document, plural: str = "pods", group: str = "api/v1") -> None:
        """Store an object, under its own resourceVersion."""
        meta = document["metadata"]
        self.stored[f"/{group}/namespaces/{meta['namespace']}/{plural}/{meta['name']}"] = deepcopy(document)

    def pod(self, name: str = "a") -> Document | None:
        """Return a pod as stored, None when it is gone."""
        return self.stored.get(f"/api/v1/namespaces/ns/pods/{name}")

    def asked(self, name: str = "a") -> list[str]:
        """Return the methods of all calls about this one object."""
        return [call.partition(" ")[0] for call in self.calls if call.endswith(f" {name}")]

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request; for an aiohttp server."""
        call = f"{request.method} {request.path.rpartition('/')[2]}"
        self.calls.append(call)
        try:
            self.trouble(call)
            body = self._do(request.method, request.path, await request.read(), request.content_type)
            self.after(call)
        except RefusedError as refused:
            return web.json_response({"reason": "Refused", "message": call}, status=refused.status)
        return web.json_response(body)

    def _do(self, method: str, path: str, body: bytes, how: str) -> Document:
        if method == "POST":
            return self._create(path, json.loads(body))
        if path not in self.stored:
            plural = path.rpartition("/")[2]
            if method != "GET" or plural not in PLURALS:
                raise RefusedError(404)
            under = [each for key, each in self.stored.items() if f"/{plural}/" in key]
            return {"items": under, "metadata": {"resourceVersion": str(self._version)}}
        return self._patch(path, json.loads(body), how) if method == "PATCH" else self.stored[path]

    def _create(self, path: str, body: Document) -> Document:
        self.stored[f"{path}/{body['metadata']['name']}"] = body
        return body

    def _patch(self, path: str, body: Any, how: str) -> Document:  # noqa: ANN401
        before = self.stored[path]
        after = _changed(before, body) if how == "application/json-patch+json" else _merged(before, body)
        if after == before:
            return before
        self._version += 1
        after["metadata"]["resourceVersion"] = str(self._version)
        self.stored[path] = after
        if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
            del self.stored[path]
        return after


def _merged(before: Document, body: Document) -> Document:
    for guard in ("uid", "resourceVersion"):
        if body.get("metadata", {}).get(guard, before["metadata"][guard]) != before["metadata"][guard]:
            raise RefusedError(409)
    after = deepcopy(before)
    merge(after, body)
    return after


def merge(into: Document, body: Document) -> None:
    """Apply a merge patch."""
    for field, value in body.items():
        if value is None:
            into.pop(field, None)
        elif isinstance(value, dict):
            merge(into.setdefault(field, {}), value)
        else:
            into[field] = value


def _changed(before: Document, operations: list[Document]) -> Document:
    after = deepcopy(before)
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place: Any = after
        for part in way:
            place = place.get(part, {})
        _operate(place, int(last) if isinstance(place, list) else last, operation)
    return after


def _operate(place: Any, key: Any, operation: Document) -> None:  # noqa: ANN401
    present = key < len(place) if isinstance(place, list) else key in place
    if operation["op"] == "test" and not (present and place[key] == operation["value"]):
        raise RefusedError(422)
    if operation["op"] == "remove":
        del place[key]
    elif operation["op"] == "add":
        place[key] = operation["value"]


@asynccontextmanager
async def serving(answer: Callable[[web.BaseRequest], Any]) -> AsyncIterator[Api]:
    """Serve on loopback, and yield the way there."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = Api(configuration)
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()
