"""The API server's verdict without an API server: what `kubectl apply` would refuse is refused, and nothing else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from tailrace.api.crd import full_schema
from tailrace.api.documents import Document, read_documents
from tailrace.api.inferenceserver import InferenceServer
from tailrace.api.problems import Problem, Schema, child_schema, path_of, problems_of
from tailrace.api.rules import broken

Step = str | int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one document of a text: a server, or the problems that must be mended first."""

    line: int
    name: str = ""
    server: InferenceServer | None = None
    problems: tuple[Problem, ...] = ()


def validate(document: object, old: Mapping[str, Any] | None = None) -> InferenceServer | list[Problem]:
    """Give the resource that `document` (JSON values) describes, or everything that is wrong with it.

    `old` is the version it replaces, for the rules about change. Nothing is raised, whatever the document is.
    """
    if not isinstance(document, Mapping):
        return [Problem("", "an InferenceServer is a mapping with apiVersion, kind, metadata and spec")]
    plain = _without_nulls(document, full_schema())
    try:
        server = _parse(plain)
    except ValidationError as error:
        return problems_of(error.errors(include_url=False), full_schema())
    rules = [Problem(path, message) for path, message in broken(server, _previous(old))]
    return [*_repeated(plain, full_schema(), ()), *rules] or server


def load_documents(text: str) -> list[Verdict]:
    """Judge every YAML document of `text`, in order; two documents of one name and namespace are a problem."""
    seen: dict[tuple[str, str], int] = {}
    return [_unique(_judge(document), seen) for document in read_documents(text)]


def _parse(document: object) -> InferenceServer:
    # As JSON text: pydantic's strict mode then takes enums and times from strings, yet no "3" for a 3.
    return InferenceServer.model_validate_json(json.dumps(document, default=str), strict=True, by_name=False)


def _previous(old: Mapping[str, Any] | None) -> InferenceServer | None:
    """Read the old version; one that breaks today's schema can't be compared with."""
    if old is None:
        return None
    try:
        return _parse(_without_nulls(old, full_schema()))
    except ValidationError:
        return None


def _without_nulls(value: Any, schema: Schema) -> Any:  # noqa: ANN401  (any JSON value)
    """Take null for absent where the schema knows the field, as the API server does."""
    if isinstance(value, list):
        return [_without_nulls(item, child_schema(schema, 0)) for item in value]
    if not isinstance(value, Mapping):
        return value
    children = ((key, child, child_schema(schema, key)) for key, child in value.items())
    return {key: _without_nulls(child, known) for key, child, known in children if child is not None or not known}


def _repeated(value: object, schema: Schema, steps: tuple[Step, ...]) -> Iterator[Problem]:
    """Find items that stand twice in a list that holds each once."""
    if isinstance(value, list):
        yield from _repeated_items(value, schema, steps)
    children = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, Mapping) else ()
    for step, child in children:
        yield from _repeated(child, child_schema(schema, step), (*steps, step))


def _repeated_items(items: list[Any], schema: Schema, steps: tuple[Step, ...]) -> Iterator[Problem]:
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if not keys and schema.get("x-kubernetes-list-type") != "set":
        return
    seen = set()
    for index, item in enumerate(items):
        identity = tuple(item.get(key) for key in keys) if keys else (item,)
        if identity in seen:
            yield Problem(path_of((*steps, index)), f"{identity[0]} stands twice in this list; take one out")
        seen.add(identity)


def _judge(document: Document) -> Verdict:
    if document.error:
        return Verdict(document.line, problems=(Problem("", str(document.error)),))
    found = validate(document.value)
    if isinstance(found, InferenceServer):
        return Verdict(document.line, found.metadata.name, server=found)
    return Verdict(document.line, _name(document.value), problems=tuple(found))


def _name(document: object) -> str:
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    return str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""


def _unique(verdict: Verdict, seen: dict[tuple[str, str], int]) -> Verdict:
    if verdict.server is None:
        return verdict
    metadata = verdict.server.metadata
    first = seen.setdefault((metadata.namespace, metadata.name), verdict.line)
    if first == verdict.line:
        return verdict
    problem = Problem("metadata.name", f"{metadata.name} is described at line {first} already; give it another name")
    return replace(verdict, server=None, problems=(problem,))
