"""From method and path to a handler, and from an exception to an answer."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

from aiohttp import web

from tailrace.http.errors import DoorError, internal
from tailrace.http.headers import SERVER

log = logging.getLogger(__name__)

PathHandler = Callable[..., Awaitable[web.StreamResponse]]
"""Takes the request, then what the groups of the path's pattern matched, unquoted."""

Methods = Mapping[str, PathHandler]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, or a pattern with groups that the whole path must match, and a handler for each method."""

    path: str | re.Pattern[str]
    methods: Methods


def get(path: str | re.Pattern[str], handler: PathHandler) -> Route:
    """Return a route that answers GET and HEAD."""
    return Route(path, {"GET": handler, "HEAD": handler})


def post(path: str | re.Pattern[str], handler: PathHandler) -> Route:
    """Return a route that answers POST."""
    return Route(path, {"POST": handler})


class Dispatch:
    """The handler of a server: finds the route, answers 404 and 405, and lets no exception reach a client."""

    def __init__(self, routes: list[Route], *, unknown: str) -> None:
        """``unknown`` says in a 404 what there is instead."""
        self._exact = {route.path: route.methods for route in routes if isinstance(route.path, str)}
        self._patterns = [(route.path, route.methods) for route in routes if isinstance(route.path, re.Pattern)]
        self._unknown = unknown

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request."""
        try:
            handler, groups = self._handler(request.method, request.raw_path.partition("?")[0])
            answer = await handler(request, *groups)
        except DoorError as error:
            answer = error.response()
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            answer = _after_fault(request)
        if not answer.prepared:
            answer.headers.setdefault("Server", SERVER)
        return answer

    def _handler(self, method: str, path: str) -> tuple[PathHandler, Iterator[str]]:
        methods, groups = self._find(path)
        handler = methods.get(method)
        if handler is None:
            raise _wrong_method(method, methods)
        return handler, groups

    def _find(self, path: str) -> tuple[Methods, Iterator[str]]:
        methods = self._exact.get(path)
        if methods is not None:
            return methods, iter(())
        for pattern, found in self._patterns:
            if match := pattern.fullmatch(path):
                return found, map(unquote, match.groups())
        raise DoorError(HTTPStatus.NOT_FOUND, "path_not_found", f"there is nothing at {path}; {self._unknown}")


def _wrong_method(method: str, methods: Methods) -> DoorError:
    allowed = ", ".join(sorted(methods))
    return DoorError(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "method_not_allowed",
        f"{method} is not allowed here; use {allowed}",
        headers={"Allow": allowed},
    )


def _after_fault(request: web.BaseRequest) -> web.StreamResponse:
    """Answer 500, or break off an answer that has begun."""
    if request.writer.output_size > 0 and request.transport is not None:
        request.transport.abort()
    return internal().response()
