from datetime import UTC, datetime

import pytest

from tailrace.gate.log import Story, line
from tailrace.gate.protocol import Answer, Fault

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


class Lines:
    def __init__(self) -> None:
        self.steps: list[tuple[str, dict[str, object]]] = []

    def __call__(self, event: str, /, **fields: object) -> None:
        self.steps.append((event, fields))

    def events(self) -> list[str]:
        return [event for event, _ in self.steps]

    def counts(self) -> list[object]:
        return [fields["count"] for event, fields in self.steps if event == "in-flight"]


def draining(in_flight: int) -> Answer:
    return Answer("draining", in_flight, safe_to_delete=False)


def test_a_step_is_one_line_of_keys_and_values() -> None:
    text = line(MOMENT, "drain-ended", {"reason": "drained", "seconds": 2.5, "router": None})
    assert text == "2026-01-02T03:04:05.678+00:00 tailrace-gate drain-ended reason=drained seconds=2.5"


@pytest.mark.parametrize("value", ["two words", 'a "quote"', "a\nb", "", "k=v"])
def test_a_value_cannot_break_the_line(value: str) -> None:
    text = line(MOMENT, "e", {"why": value})
    assert "\n" not in text
    assert text.partition("why=")[2].startswith('"')


def test_a_router_is_told_again_only_when_its_standing_changes() -> None:
    lines = Lines()
    story = Story(lines)
    words: list[Answer | Fault] = [draining(1), draining(1), Fault("down"), Fault("down"), draining(1)]
    for now, word in enumerate(words):
        story.heard("a", word, float(now))
    assert lines.events() == ["router-answered", "in-flight", "router-failed", "router-answered"]


def test_each_router_has_a_standing_of_its_own() -> None:
    lines = Lines()
    story = Story(lines)
    story.heard("a", Fault("down"), 0.0)
    story.heard("b", Fault("down"), 0.0)
    assert lines.events() == ["router-failed", "router-failed"]


def test_counts_are_told_at_most_every_five_seconds() -> None:
    lines = Lines()
    story = Story(lines)
    for now, count in [(0.0, 9), (1.0, 8), (4.9, 7), (5.0, 6), (11.0, 6), (12.0, 0)]:
        story.heard("a", draining(count), now)
    assert lines.counts() == [9, 6, 0]
