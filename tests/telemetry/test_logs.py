"""Log lines for machines and for people."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tailrace.telemetry.logs import set_up


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(stream: io.StringIO, *, as_json: bool | None = None, level: str = "INFO") -> str:
    set_up(level, as_json=as_json, stream=stream)
    log = logging.getLogger("tailrace.test")
    log.debug("unheard")
    try:
        int("why")
    except ValueError:
        log.exception("failed %d times", 3, extra={"request_id": "req-1"})
    return stream.getvalue()


def test_a_record_is_one_json_object_a_line_with_its_extra_fields() -> None:
    lines = logged(io.StringIO()).splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["level"], line["logger"], line["message"]) == ("error", "tailrace.test", "failed 3 times")
    assert line["request_id"] == "req-1"
    assert line["time"].endswith("+00:00")
    assert "ValueError: invalid literal" in line["exception"]


def test_people_at_a_terminal_read_plain_lines() -> None:
    first, *rest = logged(Terminal()).splitlines()
    assert first.endswith("ERROR   tailrace.test: failed 3 times request_id=req-1")
    assert rest[-1].startswith("ValueError: invalid literal")


def test_json_can_be_asked_for_at_a_terminal_and_plain_in_a_file() -> None:
    assert json.loads(logged(Terminal(), as_json=True))
    assert not logged(io.StringIO(), as_json=False).startswith("{")


def test_what_json_cannot_say_is_said_in_words() -> None:
    stream = io.StringIO()
    set_up(stream=stream)
    logging.getLogger("x").warning("odd", extra={"thing": {1}})
    assert json.loads(stream.getvalue())["thing"] == "{1}"
