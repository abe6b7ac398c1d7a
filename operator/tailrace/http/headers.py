"""Which headers cross the proxy, and the request's id. Pure but for the id's randomness, which is passed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from multidict import CIMultiDict, CIMultiDictProxy

REQUEST_ID = "x-request-id"
IDEMPOTENCY_KEY = "idempotency-key"
DESTINATION = "x-gateway-destination-endpoint"
SUBSET = f"{DESTINATION}-subset"
"""The endpoints that a gateway allows: ip:port, ip:port, ..."""
DROPPED_REASON = "x-tailrace-dropped-reason"
NAMESPACE = "x-tailrace-namespace"

SERVER = "tailrace"
"""Said in the header Server where nobody else says one, in place of the library and its version."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection and never cross a proxy (RFC 9110, section 7.6.1)."""

_NOT_SENT_ON = HOP_BY_HOP | {"host", "content-length", "expect"}
"""Of a request: also what the next hop's client writes itself, and what was answered here."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}")

Headers = CIMultiDict[str]


def request_id(headers: CIMultiDictProxy[str], new_id: Callable[[], str]) -> str:
    """Return the client's request id when it is fit to be logged and relayed, else a new one."""
    given = headers.get(REQUEST_ID)
    return given if given is not None and _SANE_ID.fullmatch(given) else new_id()


def to_upstream(headers: CIMultiDictProxy[str], identity: str) -> Headers:
    """Return the headers to send to the engine: the client's, without those of its connection, with the id."""
    sent = _crossing(headers, _NOT_SENT_ON)
    sent[REQUEST_ID] = identity
    sent.setdefault(IDEMPOTENCY_KEY, identity)
    return sent


def to_client(headers: CIMultiDictProxy[str], identity: str, destination: str) -> Headers:
    """Return the headers to send to the client: the engine's, without those of its connection, with ours."""
    sent = _crossing(headers, HOP_BY_HOP)
    sent[REQUEST_ID] = identity
    sent[DESTINATION] = destination
    sent.setdefault("Server", SERVER)
    return sent


def _crossing(headers: CIMultiDictProxy[str], stopped: frozenset[str]) -> Headers:
    named = headers.getall("connection", ())
    stop = stopped | _listed(named) if named else stopped
    return CIMultiDict([(name, value) for name, value in headers.items() if name.lower() not in stop])


def _listed(values: Iterable[str]) -> set[str]:
    """Return the header names that the values of ``Connection`` list."""
    return {name.strip().lower() for value in values for name in value.split(",")}
