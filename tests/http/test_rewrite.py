"""Only the value of the outermost key ``model`` is replaced."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.http.errors import DoorError
from tailrace.http.rewrite import MAX_FIELDS, replace_model

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "model",
        '"model":',
        '"model": "x"',
        "\\",
        '\\"',
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\n",
        "x" * 5000,
        "]" * 5000 + '"\\',
    ]
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("model"), inner, max_size=3),
    max_leaves=8,
)
DOCUMENT = st.dictionaries(TEXT | st.just("model"), VALUE, max_size=5)
BLANK = st.text(" \t\r\n", max_size=2)


@st.composite
def written(draw: st.DrawFn) -> tuple[list[tuple[str, object]], list[bytes]]:
    """Return the outermost pairs, and the document in pieces: the pieces of odd index are values of ``model``."""
    pairs = draw(st.lists(st.tuples(TEXT | st.just("model"), VALUE), max_size=5))
    parts = [draw(BLANK).encode() + b"{" + draw(BLANK).encode()]
    for index, (key, value) in enumerate(pairs):
        parts[-1] += (b"," if index else b"") + draw(BLANK).encode()
        parts[-1] += _key(draw, key) + draw(BLANK).encode() + b":" + draw(BLANK).encode()
        dumped = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.just(1))).encode()
        parts += [dumped, b""] if key == "model" else []
        parts[-1] += b"" if key == "model" else dumped
        parts[-1] += draw(BLANK).encode()
    parts[-1] += b"}" + draw(BLANK).encode()
    return pairs, parts


def _key(draw: st.DrawFn, key: str) -> bytes:
    """Write a key, sometimes with all its letters escaped."""
    if key == "model" and draw(st.booleans()):
        return b'"' + "".join(f"\\u{ord(letter):04x}" for letter in key).encode() + b'"'
    return json.dumps(key, ensure_ascii=draw(st.booleans())).encode()


@given(written(), TEXT)
def test_the_outermost_models_change_and_no_other_byte_does(
    document: tuple[list[tuple[str, object]], list[bytes]], name: str
) -> None:
    _, parts = document
    changed = [json.dumps(name).encode() if index % 2 else part for index, part in enumerate(parts)]
    assert replace_model(b"".join(parts), name) == b"".join(changed)


@given(DOCUMENT, TEXT)
def test_the_result_parses_to_the_same_with_the_new_model(document: dict[str, object], name: str) -> None:
    document = {**document, "model": "old"}
    assert json.loads(replace_model(json.dumps(document).encode(), name)) == {**document, "model": name}


@given(st.binary(max_size=40) | st.builds(lambda d, n: json.dumps(d).encode()[:n], VALUE, st.integers(0, 60)))
def test_what_is_no_json_object_raises_value_error_or_nothing(document: bytes) -> None:
    with suppress(ValueError):
        replace_model(document, "x")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model":"a"}', b'{"model":"n"}'),
        (b'{"model" : null ,"b":1}', b'{"model" : "n" ,"b":1}'),
        (b'{"a":{"model":"x"},"model":"y"}', b'{"a":{"model":"x"},"model":"n"}'),
        (b'{"a":"\\"model\\":\\"x\\"","model":"y"}', b'{"a":"\\"model\\":\\"x\\"","model":"n"}'),
        (b'{"model":"a","model":"b"}', b'{"model":"n","model":"n"}'),
        (b'{"a":[[{"model":1}],"}"],"model":"b"}', b'{"a":[[{"model":1}],"}"],"model":"n"}'),
        (b'{"a":"model"}', b'{"a":"model"}'),
        (b"{ }", b"{ }"),
    ],
)
def test_examples(before: bytes, after: bytes) -> None:
    assert replace_model(before, "n") == after


def test_a_long_document_takes_no_time_to_speak_of() -> None:
    text = json.dumps({"messages": [{"content": '"\\' * 500_000}], "model": "a"}).encode()
    assert json.loads(replace_model(text, "b"))["model"] == "b"


def test_a_document_with_more_fields_than_anybody_needs_is_refused() -> None:
    fields = b'"k":1,' * MAX_FIELDS
    with pytest.raises(DoorError) as refused:
        replace_model(b'{"model":"a",' + fields + b'"z":1}', "b")
    assert (refused.value.status, refused.value.code) == (413, "body_too_complex")
