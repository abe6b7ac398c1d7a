"""Whatever Tailrace says, docs/troubleshooting.md has an entry for it."""

import re

import pytest
from tests.cli import troubles

from tailrace.api.inferenceserver import ConditionType
from tailrace.kube.doctor.servers import EXPECTED, GRAVE

PAGE = troubles.PACKAGE.parents[1] / "docs" / "troubleshooting.md"
TEXT = PAGE.read_text()
ENTRIES: dict[str, str] = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")
]


def names(kind: str, text: str) -> bool:
    """Whether a text speaks of a condition type; any problem makes a server Degraded, or is a type of its own."""
    kinds = [kind] if kind else ["Degraded", *troubles.special_types()]
    return any(re.search(rf"\b{each}\b", text) for each in kinds)


def has_condition(kind: str, reason: str) -> bool:
    row = any(reason == cells[1] and names(kind, cells[0]) for cells in ROWS)
    return row or names(kind, ENTRIES.get(reason, ""))


def test_every_condition_has_an_entry_that_names_its_type() -> None:
    found = troubles.conditions()
    assert len(found) > 25
    assert sorted(each for each in found if not has_condition(*each)) == []


def test_the_conditions_that_are_always_there_are_written_by_their_one_definition() -> None:
    assert {kind for kind, _ in troubles.conditions() if kind} == {each.value for each in ConditionType}
    assert all(isinstance(kind, ConditionType) for kind in (*EXPECTED, *GRAVE))


def test_every_type_that_is_there_only_while_something_is_wrong_is_named() -> None:
    found = troubles.special_types()
    assert {"AmbiguousSelector", "TemplateDrift", "PoolSettingsIgnored"} <= found
    assert [kind for kind in found if not re.search(rf"condition {kind} is True", TEXT)] == []


@pytest.mark.parametrize(("collect", "least"), [(troubles.codes, 30), (troubles.events, 2)])
def test_every_code_and_event_has_an_entry(collect: object, least: int) -> None:
    assert callable(collect)
    found = collect()
    assert len(found) >= least
    assert sorted(found - ENTRIES.keys()) == []


def test_every_place_the_doctor_sends_people_to_exists() -> None:
    found = troubles.anchors()
    assert len(found) > 20
    assert sorted(found - {title.lower() for title in ENTRIES}) == []


def test_every_exit_code_that_a_command_tells_has_a_row() -> None:
    found = troubles.exits()
    rows = {(cells[0].removeprefix("tailrace "), cells[1]) for cells in ROWS}
    assert {("doctor", "0"), ("doctor", "1"), ("doctor", "2")} <= found
    assert sorted(found - rows) == []


@pytest.mark.parametrize("title", sorted(ENTRIES))
def test_an_entry_says_symptom_cause_and_remedy(title: str) -> None:
    assert re.match(r"\n\*\*Symptom\.\*\* .*\n\*\*Why\.\*\* .*\n\*\*Do\.\*\* ", ENTRIES[title], re.DOTALL)


def test_an_entry_is_about_something_that_exists() -> None:
    known = {reason for _, reason in troubles.conditions()} | troubles.codes() | troubles.events() | troubles.anchors()
    assert sorted(set(ENTRIES) - known) == []
