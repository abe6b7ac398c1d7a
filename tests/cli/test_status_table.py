"""The table of `tailrace status`: on a narrow terminal, and in a pipe."""

import io

import pytest

from tailrace.cli import status

NAME = "llama-3-3-70b-instruct-7d9f8b6c5d-x2x9k"
ENDPOINT = {
    "uid": "u",
    "server": "shop/llama",
    "name": NAME,
    "address": "10.244.17.203:8000",
    "gpuMemoryGB": 80,
    "reason": "x" * 30 + " and a second line\nof [words] \x1b[31m" + "y" * 1500,
}


def printed(width: int | None) -> list[str]:
    return list(status._table([ENDPOINT, ENDPOINT | {"reason": ""}], width))


def test_a_narrow_terminal_folds_the_last_column_only() -> None:
    head, row, *more, empty = printed(80)
    assert head.split() == ["SERVER", "NAME", "ADDRESS", "GPU", "GB", "REASON"]
    assert row.startswith(f"shop/llama  {NAME}  10.244.17.203:8000  80      ")
    assert all(line.startswith(" " * head.index("REASON")) for line in more)
    assert empty == f"shop/llama  {NAME}  10.244.17.203:8000  80"


def test_what_engines_say_is_shown_where_any_of_them_says_it() -> None:
    told = ENDPOINT | {"engineRunning": 3.0, "engineWaiting": 0.0, "kvUsage": None, "reason": "", "gpuMemoryGB": None}
    head, *rows = status._table([told, told | {"engineRunning": None, "engineWaiting": None}], None)
    assert head.split() == ["SERVER", "NAME", "ADDRESS", "RUNNING", "WAITING"]
    assert rows[0].split()[-2:] == ["3", "0"]
    assert rows[1].split()[-1] == "10.244.17.203:8000"  # unknown is not 0


def test_a_share_is_shown_in_four_digits_and_a_count_without_a_point() -> None:
    _, row = status._table([ENDPOINT | {"kvUsage": 0.0024051, "reason": ""}], None)
    assert row.split()[-1] == "0.0024"


def test_connections_that_failed_are_a_column_only_where_there_are_any() -> None:
    well = ENDPOINT | {"connectFailures": 0, "reason": ""}
    assert "NO CONNECT" not in "".join(status._table([well, well], None))
    head, *rows = status._table([well, well | {"connectFailures": 4}], None)
    assert head.endswith("GPU GB  NO CONNECT")
    assert [row.split()[-1] for row in rows] == ["0", "4"]


def test_in_a_pipe_a_line_is_a_row_with_all_its_words() -> None:
    lines = printed(None)
    assert len(lines) == 3
    assert lines[1].endswith(" and a second line of [words] [31m" + "y" * 1500)


def test_a_pipe_has_no_width_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert status._terminal_width() is None
