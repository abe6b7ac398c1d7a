"""What is written in two places of the charts, from the one place where people edit it.

`python -m tests.charts.written` copies the comments of each values.yaml into the README and the values' schema, and
the CustomResourceDefinition into its chart; a test fails while a copy is old.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.repo.tree import ROOT

CHARTS = tuple(ROOT / "charts" / name for name in ("tailrace", "tailrace-crds"))
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
CRD = ROOT / "crds" / "inference.tailrace.dev_inferenceservers.yaml"
CRD_TEMPLATE = ROOT / "charts" / "tailrace-crds" / "templates" / "inferenceservers.yaml"
CRD_NAME_LINE = "  name: inferenceservers.inference.tailrace.dev\n"
CRD_ADDED = '  {{- include "tailrace-crds.metadata" . | nindent 2 }}\n'


@dataclass(frozen=True)
class Value:
    """One value: its path, its default, and the comment above it."""

    path: tuple[str, ...]
    default: object
    comment: str


def commented(text: str) -> list[Value]:
    """Return the values in order. A mapping without a comment is a group; a ValueError names what has none."""
    root = yaml.compose(text)
    return list(_values(root, text.splitlines(), ())) if root else []


def _values(node: yaml.Node, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        here, comment = (*path, key.value), _comment_above(lines, key.start_mark.line)
        if comment:
            yield Value(here, yaml.safe_load(yaml.serialize(value)), comment)
        elif isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _values(value, lines, here)
        else:
            raise ValueError(f"{'.'.join(here)} has no comment above it")


def _comment_above(lines: list[str], line: int) -> str:
    found: list[str] = []
    while line > 0 and (text := lines[line - 1].strip()).startswith("#"):
        found.insert(0, text.removeprefix("#").strip())
        line -= 1
    return " ".join(found)


def readme(chart: Path) -> str:
    """Return the chart's README with the present table of values."""
    before, rest = (chart / "README.md").read_text().split(BEGIN)
    rows = [f"| `{'.'.join(v.path)}` | `{json.dumps(v.default)}` | {v.comment} |" for v in _of(chart)]
    return before + BEGIN + "\n".join(["| value | default | what it is |", "|---|---|---|", *rows, END]) + _after(rest)


def _after(rest: str) -> str:
    return rest.split(END)[1]


def schema(chart: Path) -> str:
    """Return the chart's schema with the present descriptions; what values.yaml does not name keeps its own."""
    document: dict[str, Any] = json.loads((chart / "values.schema.json").read_text())
    for value in _of(chart):
        found = _property(document, value.path)
        if found is not None:
            found["description"] = value.comment
    return json.dumps(document, indent=2) + "\n"


def _property(schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """Find a property that is the value's own; one of a shared definition is described there."""
    for name in path:
        if "properties" not in schema:
            return None
        schema = schema["properties"][name]
    return schema


def _of(chart: Path) -> list[Value]:
    return commented((chart / "values.yaml").read_text())


def definition() -> str:
    """Return the definition as the chart's template has it."""
    before, name, after = CRD.read_text().partition(CRD_NAME_LINE)
    return before + name + CRD_ADDED + after


def copies() -> dict[Path, str]:
    """Return every file that holds copies, and what should be in it."""
    texts = {CRD_TEMPLATE: definition()}
    for chart in CHARTS:
        texts |= {chart / "README.md": readme(chart), chart / "values.schema.json": schema(chart)}
    return texts


if __name__ == "__main__":
    for file, text in copies().items():
        file.write_text(text)
