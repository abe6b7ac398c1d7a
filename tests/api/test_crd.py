"""The definition is what Kubernetes takes: structural, bounded, described; the committed file is the current one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.api.mutations import RIGHT
from typer.testing import CliRunner

from tailrace.api.crd import crd_schema, crd_yaml, custom_resource_definition, descend, inline, structural
from tailrace.api.names import GATE_CONTAINER
from tailrace.api.rules import RULES, Rule, values_at
from tailrace.api.verdict import validate
from tailrace.cli.crds import crds

FILE = Path(__file__).parents[2] / "crds" / "inference.tailrace.dev_inferenceservers.yaml"


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from parts(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from parts(schema["additionalProperties"], f"{path}{{}}")


PARTS = dict(parts(crd_schema()))
OURS = {path: part for path, part in PARTS.items() if path.startswith(("spec", "status"))}


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {path: part for path, part in OURS.items() if part.get("type") == kind}


def test_the_committed_file_is_current() -> None:
    assert FILE.read_text() == crd_yaml(), "run `make crds`"


def test_the_command_prints_the_file() -> None:
    app = typer.Typer()
    app.command()(crds)
    result = CliRunner().invoke(app)
    assert (result.exit_code, result.output) == (0, crd_yaml())


def test_nothing_is_left_that_kubernetes_does_not_know() -> None:
    unknown = {"$ref", "$defs", "anyOf", "const", "title", "exclusiveMinimum", "exclusiveMaximum", "discriminator"}
    assert {path: unknown & part.keys() for path, part in PARTS.items() if unknown & part.keys()} == {}


def test_every_part_has_a_type() -> None:
    assert [
        path for path, part in PARTS.items() if "type" not in part and "x-kubernetes-int-or-string" not in part
    ] == []


def test_every_field_says_what_it_is() -> None:
    fields = [path for path in OURS if not path.endswith(("[]", "{}"))]
    assert [path for path in fields if len(OURS[path].get("description", "")) < 10] == []


def test_every_text_has_an_end() -> None:
    bounded = ("maxLength", "enum", "format")
    assert [path for path, part in of_type("string").items() if not any(key in part for key in bounded)] == []


def test_every_list_and_map_has_an_end() -> None:
    assert [path for path, part in of_type("array").items() if "maxItems" not in part] == []
    maps = {path: part for path, part in OURS.items() if "additionalProperties" in part}
    assert [path for path, part in maps.items() if "maxProperties" not in part] == []


def test_every_number_has_both_ends() -> None:
    numbers = {**of_type("integer"), **of_type("number")}
    assert [path for path, part in numbers.items() if not {"minimum", "maximum"} <= part.keys()] == []


def test_no_default_is_null_and_none_is_put_into_a_template_or_a_status() -> None:
    defaults = {path: part["default"] for path, part in OURS.items() if "default" in part}
    assert None not in defaults.values()
    assert [path for path in defaults if path.startswith(("spec.template", "status"))] == []


def test_the_replicas_have_a_default_because_the_scale_subresource_fails_without_one() -> None:
    assert PARTS["spec.replicas"]["default"] == 1


def test_a_rollout_has_no_default_because_a_rule_asks_whether_it_was_given() -> None:
    assert "default" not in PARTS["spec.rollout"]


def test_a_template_keeps_unknown_fields_at_every_level() -> None:
    template = {path: part for path, part in of_type("object").items() if path.startswith("spec.template")}
    open_parts = {path for path, part in template.items() if part.get("x-kubernetes-preserve-unknown-fields")}
    assert open_parts == template.keys() - {"spec.template.metadata.labels"}
    assert [
        path for path in PARTS if path not in template and "x-kubernetes-preserve-unknown-fields" in PARTS[path]
    ] == []


def test_lists_are_told_apart_by_their_keys() -> None:
    keys = {
        path: part["x-kubernetes-list-map-keys"] for path, part in PARTS.items() if "x-kubernetes-list-map-keys" in part
    }
    assert keys == {
        "spec.models": ["name"],
        "spec.template.spec.containers": ["name"],
        "spec.template.spec.initContainers": ["name"],
        "spec.endpoints": ["address"],
        "status.conditions": ["type"],
    }


def test_the_status_is_bounded_as_promised() -> None:
    assert (PARTS["status.endpoints"]["maxItems"], PARTS["status.drains"]["maxItems"]) == (100, 10)


def test_only_the_name_is_limited_in_the_metadata() -> None:
    assert PARTS["metadata"]["properties"].keys() == {"name"}


def test_a_number_or_a_percentage_is_one_field() -> None:
    surge = PARTS["spec.rollout.maxSurge"]
    assert surge["x-kubernetes-int-or-string"] is True
    assert surge["default"] == 1


def test_the_definition_is_the_same_on_every_run_and_has_no_anchors() -> None:
    assert crd_yaml() == crd_yaml()
    assert yaml.safe_load(crd_yaml()) == custom_resource_definition()
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(crd_yaml()))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.path}: {rule.message[:30]}")
def test_a_rule_stands_where_it_says_and_points_at_a_field(rule: Rule) -> None:
    at = descend(crd_schema(), rule.path)
    assert rule.cel in [row["rule"] for row in at["x-kubernetes-validations"]]
    assert not rule.field or rule.field in at["properties"]
    assert "\n" not in rule.message


def test_every_rule_stands_in_the_definition_once() -> None:
    rows = [row for part in PARTS.values() for row in part.get("x-kubernetes-validations", [])]
    assert len(rows) == len(RULES)


def test_one_document_reaches_every_rule() -> None:
    reached = set()
    for document in RIGHT.values():
        server = validate(document)
        assert not isinstance(server, list)
        reached |= {rule.path for rule in RULES if list(values_at(server, rule.path))}
    assert reached == {rule.path for rule in RULES}


def test_the_name_of_the_gate_is_reserved_in_the_definition() -> None:
    rows = PARTS["spec.template.spec.containers[]"]["x-kubernetes-validations"]
    assert rows[0]["rule"] == f"self.name != '{GATE_CONTAINER}'"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({"const": "a", "type": "string"}, {"enum": ["a"], "type": "string"}),
        ({"exclusiveMinimum": 0, "type": "integer"}, {"minimum": 1, "type": "integer"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, {"type": "integer"}),
        ({"title": "T", "type": "object", "additionalProperties": False}, {"type": "object"}),
        (
            {"type": "object", "additionalProperties": True},
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
        (
            {"type": "object", "additionalProperties": {"title": "T", "type": "string"}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ),
        ({"type": "array", "items": {"const": 1}}, {"type": "array", "items": {"enum": [1]}}),
        ({"type": "object", "properties": {"title": {"title": "T"}}}, {"type": "object", "properties": {"title": {}}}),
    ],
)
def test_json_schema_becomes_structural(written: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert structural(written) == wanted


def test_a_reference_is_replaced_by_what_it_names() -> None:
    definitions = {
        "A": {"type": "object", "description": "of A", "properties": {"b": {"$ref": "#/$defs/B"}}},
        "B": {"x": 1},
    }
    node = {"items": [{"$ref": "#/$defs/A", "description": "here"}]}
    assert inline(node, definitions) == {
        "items": [{"type": "object", "description": "here", "properties": {"b": {"x": 1}}}]
    }
