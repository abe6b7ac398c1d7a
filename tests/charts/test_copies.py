import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.charts.written import CHARTS, commented, copies

import tailrace


@pytest.mark.parametrize("file", list(copies()), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_copy_is_as_its_source(file: Path) -> None:
    assert file.read_text() == copies()[file], f"{file.name} is old: run `python -m tests.charts.written`"


def test_a_value_without_a_comment_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"group\.bare has no comment"):
        commented("group:\n  # said\n  told: 1\n  bare: 2\n")


def test_the_comment_of_a_value_is_all_the_lines_above_it() -> None:
    (value,) = commented("# about the file\n\n# one\n# two\nkey: {a: 1}\n")
    assert (value.path, value.default, value.comment) == (("key",), {"a": 1}, "one two")


def schemas(chart: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and schema of every property and definition."""
    document = json.loads((chart / "values.schema.json").read_text())
    pending = [("", document), *((f"#{name}", part) for name, part in document["definitions"].items())]
    while pending:
        path, schema = pending.pop()
        yield path, schema
        pending += [(f"{path}.{name}", part) for name, part in schema.get("properties", {}).items()]
        items = schema.get("items", {})
        pending += [(f"{path}[].{name}", part) for name, part in items.get("properties", {}).items()]
        if "properties" in items:
            assert items["additionalProperties"] is False, path


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_every_value_is_described_and_none_may_be_misspelt(chart: Path) -> None:
    for path, schema in schemas(chart):
        assert path == "" or len(schema.get("description", "")) > 4, path
        assert "properties" not in schema or schema["additionalProperties"] is False, path


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_every_value_of_the_schema_stands_in_values_yaml(chart: Path) -> None:
    known = {".".join(value.path) for value in commented((chart / "values.yaml").read_text())}
    groups = {name.rpartition(".")[0] for name in known} | {"service", "resources", "probes", ""}
    document = json.loads((chart / "values.schema.json").read_text())

    def unknown(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, part in schema["properties"].items():
            here = f"{path}.{name}".lstrip(".")
            if here in groups and "properties" in part:
                yield from unknown(part, here)
            elif here not in known | groups | {"global", "enabled"}:
                yield here

    assert list(unknown(document)) == []


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_a_chart_installs_the_version_of_this_checkout(chart: Path) -> None:
    assert f'appVersion: "{tailrace.__version__}"\n' in (chart / "Chart.yaml").read_text()
