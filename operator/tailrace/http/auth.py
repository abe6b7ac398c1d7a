"""Who may do what on the admin port."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from tailrace.http.errors import RETRY_AFTER, DoorError
from tailrace.link import Reviewed

AUDIENCE = "tailrace"
"""Audience of the tokens that pods' gates hold."""

CACHE_SECONDS = 60.0
CACHE_SIZE = 1024

NO_TOKEN = "none"  # noqa: S105 - it is no token
"""Sent for review in place of an absent token, to learn whether the API server can be asked at all."""

_Question = tuple[str | None, str | None, str | None, str | None]


class Reviewer(Protocol):
    """Asks the API server."""

    async def review(
        self,
        token: str,
        *,
        audience: str | None = None,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
    ) -> Reviewed:
        """Return who bears the token and whether they may; ``error`` set when the API server could not be asked."""
        ...


class CachedReviewer:
    """Remembers who was let through for a minute, by the token's hash; refusals are asked anew."""

    def __init__(self, reviewer: Reviewer, clock: Callable[[], float]) -> None:
        self._reviewer = reviewer
        self._clock = clock
        self._known: OrderedDict[tuple[bytes, _Question], tuple[float, Reviewed]] = OrderedDict()

    async def review(
        self,
        token: str,
        *,
        audience: str | None = None,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
    ) -> Reviewed:
        """Return the remembered answer or ask."""
        key = (sha256(token.encode()).digest(), (audience, verb, resource, namespace))
        until, reviewed = self._known.get(key, (0.0, None))
        if reviewed is not None and self._clock() < until:
            return reviewed
        reviewed = await self._reviewer.review(
            token, audience=audience, verb=verb, resource=resource, namespace=namespace
        )
        if reviewed.authenticated and reviewed.allowed and not reviewed.error:
            self._remember(key, reviewed)
        return reviewed

    def _remember(self, key: tuple[bytes, _Question], reviewed: Reviewed) -> None:
        self._known[key] = (self._clock() + CACHE_SECONDS, reviewed)
        self._known.move_to_end(key)
        if len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)


class Guard:
    """Lets a caller through or raises DoorError 401, 403 or 503.

    Without a reviewer (no cluster) only this machine may write. ``own_token`` is that of this replica's own account.
    """

    def __init__(
        self,
        reviewer: Reviewer | None,
        clock: Callable[[], float],
        *,
        open_reads: bool,
        own_token: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._reviewer = CachedReviewer(reviewer, clock) if reviewer is not None else None
        self._open_reads = open_reads
        self._own_token = own_token

    async def read(self, request: web.BaseRequest, pod_uid: str | None = None) -> None:
        """Let through who may read; the gate of ``pod_uid`` may read of its own pod."""
        if self._open_reads:
            return
        if self._reviewer is None:
            _require_loopback(request)
        elif pod_uid is None or not await self._is_gate(self._reviewer, request, pod_uid):
            await self._may(self._reviewer, request, "get", "endpoints", None)

    async def write(self, request: web.BaseRequest, namespace: str) -> None:
        """Let through who may change the InferenceServers of a namespace."""
        if self._reviewer is None:
            _require_loopback(request)
        else:
            await self._may(self._reviewer, request, "update", "inferenceservers", namespace)

    async def gate(self, request: web.BaseRequest, uid: str, address: str | None) -> None:
        """Let through the gate of the pod ``uid``, which answers at ``address`` (ip:port), None when unknown.

        The pod's own address is taken for proof only while the API server cannot be asked.
        """
        if self._reviewer is None:
            _require_loopback(request)
            return
        at_home = address is not None and _ip(request.remote) == _ip(_host(address))
        token = _bearer(request)
        if token is None and not at_home:
            raise _unauthenticated()
        reviewed = await self._reviewer.review(token or NO_TOKEN, audience=AUDIENCE)
        if reviewed.error:
            if not at_home:
                raise _cannot_ask(reviewed)
        elif not reviewed.authenticated:
            raise _unauthenticated()
        elif reviewed.pod_uid != uid:
            raise _forbidden("this token belongs to another pod; a gate may act for its own pod only")

    async def peer(self, request: web.BaseRequest) -> None:
        """Let through another replica: who bears a token of this replica's own account, or is on this machine.

        The second only while this replica has no token itself.
        """
        own, token = self._own_token(), _bearer(request)
        if self._reviewer is None or own is None:
            _require_loopback(request)
        elif token is None:
            raise _unauthenticated()
        else:
            ours, theirs = [await self._reviewer.review(each, audience=AUDIENCE) for each in (own, token)]
            if ours.error or theirs.error:
                raise _cannot_ask(theirs if theirs.error else ours)
            if not (ours.authenticated and theirs.authenticated):
                raise _unauthenticated()
            if theirs.user != ours.user:
                raise _forbidden("this token is not of the account that the replicas of this installation run as")

    async def _is_gate(self, reviewer: CachedReviewer, request: web.BaseRequest, uid: str) -> bool:
        token = _bearer(request)
        if token is None:
            return False
        reviewed = await reviewer.review(token, audience=AUDIENCE)
        return not reviewed.error and reviewed.authenticated and reviewed.pod_uid == uid

    async def _may(
        self, reviewer: CachedReviewer, request: web.BaseRequest, verb: str, resource: str, namespace: str | None
    ) -> None:
        token = _bearer(request)
        if token is None:
            raise _unauthenticated()
        reviewed = await reviewer.review(token, verb=verb, resource=resource, namespace=namespace)
        if reviewed.error:
            raise _cannot_ask(reviewed)
        if not reviewed.authenticated:
            raise _unauthenticated()
        if not reviewed.allowed:
            where = f" in the namespace {namespace!r}" if namespace else ""
            raise _forbidden(
                f"{reviewed.user or 'this account'} may not {verb} {resource}.inference.tailrace.dev{where}; "
                "have an administrator grant it"
            )


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _ip(host: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address; of an IPv4 address seen through an IPv6 socket, the IPv4 one. None when it is a name."""
    try:
        ip = ipaddress.ip_address(host or "")
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _require_loopback(request: web.BaseRequest) -> None:
    ip = _ip(request.remote)
    if ip is None or not ip.is_loopback:
        raise _forbidden("without a cluster only this machine may do that; call it through 127.0.0.1")


def _unauthenticated() -> DoorError:
    return DoorError(
        HTTPStatus.UNAUTHORIZED,
        "token_missing_or_invalid",
        "send 'Authorization: Bearer <token>' with a token that the API server accepts (kubectl create token)",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _forbidden(message: str) -> DoorError:
    return DoorError(HTTPStatus.FORBIDDEN, "forbidden", message)


def _cannot_ask(reviewed: Reviewed) -> DoorError:
    return DoorError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "api_server_unreachable",
        f"the API server cannot be asked about the token ({reviewed.error}); try again in the seconds of Retry-After",
        headers={RETRY_AFTER: "5"},
    )
