"""The CustomResourceDefinition, made from the models and the rules.

pydantic writes JSON Schema, Kubernetes wants a structural schema: references inlined, an absent value instead of null,
no constants, no titles, unknown fields dropped unless a part says that it keeps them.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import yaml

from tailrace.api import names
from tailrace.api.inferenceserver import InferenceServer
from tailrace.api.rules import RULES, Rule

Schema = dict[str, Any]

DROPPED: Final = frozenset({"title", "additionalProperties"})
NO_DEFAULTS_BELOW: Final = ("spec.template", "status")
"""Others' fields stay as they were written, and a status says only what was seen."""

COLUMNS: Final = (
    ("Model", "string", ".spec.models[0].name", "Name of the first model"),
    ("Ready", "string", ".status.ready", "Endpoints that take requests, of those that exist"),
    ("In-flight", "integer", ".status.inFlight", "Requests in flight"),
    ("Draining", "integer", ".status.drainingReplicas", "Endpoints that finish their requests before they go"),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation"),
)


def inline(node: Schema, definitions: Schema) -> Schema:
    """Replace every $ref by what it names; words next to a $ref win over those of the definition."""
    rest = {key: _inline_value(value, definitions) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return rest
    return {**inline(definitions[node["$ref"].rpartition("/")[2]], definitions), **rest}


def _inline_value(value: object, definitions: Schema) -> object:
    if isinstance(value, list):
        return [_inline_value(item, definitions) for item in value]
    return inline(value, definitions) if isinstance(value, dict) else value


def _without_null(node: Schema) -> Schema:
    """Take out the "or null" by which pydantic marks an optional field."""
    if "anyOf" not in node:
        return node
    (branch,) = [option for option in node["anyOf"] if option.get("type") != "null"]
    return {**branch, **{key: value for key, value in node.items() if key != "anyOf"}}


def _without_null_default(node: Schema) -> Schema:
    return {key: value for key, value in node.items() if key != "default" or value is not None}


def _const_to_enum(node: Schema) -> Schema:
    return {("enum" if key == "const" else key): ([value] if key == "const" else value) for key, value in node.items()}


def _inclusive(node: Schema) -> Schema:
    """Whole numbers above n are those from n + 1; Kubernetes has no exclusive bound of that form."""
    if "exclusiveMinimum" not in node:
        return node
    return {("minimum" if key == "exclusiveMinimum" else key): value for key, value in node.items()} | {
        "minimum": node["exclusiveMinimum"] + 1
    }


def _openness(node: Schema) -> Schema:
    """Say what happens to other fields: a map has a schema for them, an open part keeps, a closed part drops them."""
    extra = node.get("additionalProperties")
    rest = {key: value for key, value in node.items() if key not in DROPPED}
    if isinstance(extra, dict):
        return {**rest, "additionalProperties": structural(extra)}
    return {**rest, "x-kubernetes-preserve-unknown-fields": True} if extra else rest


def _children(node: Schema) -> Schema:
    if "properties" in node:
        node = {**node, "properties": {name: structural(child) for name, child in node["properties"].items()}}
    if "items" in node:
        node = {**node, "items": structural(node["items"])}
    return node


STEPS: Final[tuple[Callable[[Schema], Schema], ...]] = (
    _without_null,
    _without_null_default,
    _const_to_enum,
    _inclusive,
    _openness,
    _children,
)


def structural(node: Schema) -> Schema:
    """Turn a schema without references, and every part of it, into what Kubernetes wants."""
    for step in STEPS:
        node = step(node)
    return node


def descend(schema: Schema, path: str) -> Schema:
    """Find the schema at `path`, as in `spec.models[]`; `KeyError` when there is none."""
    for step in path.split("."):
        schema = schema["properties"][step.removesuffix("[]")]
        if step.endswith("[]"):
            schema = schema["items"]
    return schema


def _all_schemas(schema: Schema) -> Iterator[Schema]:
    yield schema
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for child in inner:
        if isinstance(child, dict):
            yield from _all_schemas(child)


def _drop_defaults(schema: Schema) -> None:
    for part in _all_schemas(schema):
        part.pop("default", None)


def _validation(rule: Rule) -> Schema:
    where = {"fieldPath": f".{rule.field}"} if rule.field else {}
    return {"rule": rule.cel, "message": rule.message, **where}


@cache
def full_schema() -> Schema:
    """Build the structural schema, every field of `metadata` included. The value is shared: do not change it."""
    raw = InferenceServer.model_json_schema(by_alias=True)
    schema = structural(inline({key: value for key, value in raw.items() if key != "$defs"}, raw["$defs"]))
    for path in NO_DEFAULTS_BELOW:
        _drop_defaults(descend(schema, path))
    for rule in RULES:
        descend(schema, rule.path).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return schema


def _metadata_limits() -> Schema:
    """Keep the only things that a CRD may say about metadata: limits of the name."""
    return {"type": "object", "properties": {"name": descend(full_schema(), "metadata.name")}}


def crd_schema() -> Schema:
    """Build the structural schema as the CRD carries it."""
    schema = full_schema()
    return {**schema, "properties": {**schema["properties"], "metadata": _metadata_limits()}}


def _column(name: str, kind: str, path: str, description: str) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, "description": description}


def _version() -> Schema:
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "schema": {"openAPIV3Schema": crd_schema()},
    }


def custom_resource_definition() -> Schema:
    """Build the CRD as JSON values, ready to be applied."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": names.CRD_NAME},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": list(names.SHORT_NAMES),
                "categories": list(names.CATEGORIES),
            },
            "versions": [_version()],
        },
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        """Write shared parts out: anchors are hard to read and some tools refuse them."""
        return True


def crd_yaml() -> str:
    """Write the CRD as YAML text, the same on every run."""
    header = "# Made by `make crds` from operator/tailrace/api; change it there.\n"
    return header + yaml.dump(custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=120)
