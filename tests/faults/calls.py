"""What one request to the API server is about, read from its method and path."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
WRITES = frozenset(VERBS.values())
UNCOUNTED = frozenset({"leases", "tokenreviews", "subjectaccessreviews"})
"""Creating or updating these changes nothing that a rollout is made of."""

REVIEWED = "namespaces"


@dataclass(slots=True)
class Call:
    """One request; `status` is what the API server answered, 0 while or where it did not."""

    at: float
    verb: str
    path: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    query: str = ""
    dry_run: bool = False
    body: Any = None
    status: int = 0
    answered_at: float = 0.0
    answer: Any = None

    @property
    def is_write(self) -> bool:
        """Whether it is meant to change something that others see; Leases and reviews do not count."""
        return self.verb in WRITES and self.resource not in UNCOUNTED and not self.dry_run

    @property
    def committed(self) -> bool:
        """Whether it is a write that the API server has carried out."""
        return self.is_write and 200 <= self.status < 300

    def __str__(self) -> str:
        what = "/".join(part for part in (self.resource, self.subresource) if part)
        return f"{self.verb} {what} {self.namespace}/{self.name} -> {self.status}"


Match = Callable[[Call], bool]


def parse(method: str, path: str, query: Mapping[str, str], *, raw_query: str, body: bytes, at: float) -> Call:
    """Return the call behind a request."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    namespace = ""
    if len(rest) > 2 and rest[0] == REVIEWED:
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = (*rest, "", "", "")[:3]
    return Call(
        at=at,
        verb=_verb(method, name, query),
        path=path,
        group=group,
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
        query=raw_query,
        dry_run="dryRun" in query,
        body=_document(body),
    )


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if query.get("watch") in ("true", "1"):
        return "watch"
    return VERBS.get(method) or ("get" if name else "list")


def _document(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return None


def on(
    verb: str | Collection[str] = "",
    resource: str | Collection[str] = "",
    *,
    group: str | None = None,
    name: str = "",
    dry_run: bool | None = None,
) -> Match:
    """Return what matches calls of these verbs, resources and so on; what is left out matches everything."""
    verbs, resources = _names(verb), _names(resource)

    def matches(call: Call) -> bool:
        return (
            (not verbs or call.verb in verbs)
            and (not resources or call.resource in resources)
            and group in (None, call.group)
            and name in ("", call.name)
            and dry_run in (None, call.dry_run)
        )

    return matches


def writes(call: Call) -> bool:
    """Match every write that counts."""
    return call.is_write


def _names(said: str | Collection[str]) -> frozenset[str]:
    return frozenset((said,) if isinstance(said, str) else said) - {""}
