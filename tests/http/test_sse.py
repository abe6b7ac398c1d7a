"""Where an event of a stream ends, and the last one of a stream ended early."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.http.sse import event_ended, last_event, tail

STREAM = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"data: x"]), max_size=8).map(b"".join)


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=8))
def test_the_tail_is_the_end_of_the_stream_however_it_is_cut(chunks: list[bytes]) -> None:
    assert reduce(tail, chunks, b"") == b"".join(chunks)[-4:]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_a_blank_line_ends_an_event(end: bytes) -> None:
    assert event_ended(tail(b"", b"data: x" + end))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r", b"\n\nd"])
def test_anything_else_does_not(end: bytes) -> None:
    assert not event_ended(tail(b"", b"data: x" + end))


def test_a_stream_in_which_nothing_came_is_between_events() -> None:
    assert event_ended(b"")


@given(STREAM)
def test_the_error_is_an_event_of_its_own_after_any_stream(before: bytes) -> None:
    after = before + last_event(before[-4:], b'{"error":1}')
    lines = after.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert lines.endswith(b'data: {"error":1}\n\n')
    assert lines == b'data: {"error":1}\n\n' or lines[: -len(b'data: {"error":1}\n\n')].endswith(b"\n\n")
