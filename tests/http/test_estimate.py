"""About how many tokens a request takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.model import Needs
from tailrace.http.estimate import MOST_VALUES, estimate
from tailrace.http.traits import traits

CHAT = {"messages": [{"role": "user", "content": "x" * 400}]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:" + "x" * 100_000}}


def tokens(document: dict[str, Any]) -> int:
    return estimate(document, image_tokens=1000, output_tokens=512)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, 1),
        (CHAT, 100),
        ({"messages": [{"content": [{"type": "text", "text": "x" * 40}, {"type": "text", "text": "x" * 40}]}]}, 20),
        ({"messages": [{"content": [IMAGE, {"type": "text", "text": "x" * 40}]}]}, 1010),
        ({"prompt": "x" * 8}, 2),
        ({"prompt": "x" * 9}, 3),
        ({"prompt": ["x" * 8, "x" * 8]}, 4),
        ({"prompt": [1, 2, 3, 4, 5]}, 5),
        ({"prompt": [[1, 2, 3], [4, 5]]}, 5),
        ({"prompt": "\u00e9" * 8}, 4),
        ({"input": "x" * 8, "instructions": "x" * 8}, 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x" * 8}]}]}, 2),
        ({"input": [{"content": [{"type": "input_image", "image_url": "x"}]}]}, 1000),
        ({"input": [{"type": "function_call_output", "output": "x" * 8}]}, 2),
        ({**CHAT, "max_tokens": 50}, 150),
        ({**CHAT, "max_completion_tokens": 50, "max_tokens": 99}, 150),
        ({**CHAT, "max_output_tokens": 100_000}, 612),
        ({**CHAT, "max_tokens": -5}, 100),
        ({"messages": "oddly a string"}, 4),
        ({"messages": [None, 1.5, {"content": None}]}, 1),
    ],
)
def test_text_images_and_answer_are_counted(document: dict[str, Any], expected: int) -> None:
    assert tokens(document) == expected


class Watched(list[Any]):
    """A list that counts how many of its elements were looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        for each in super().__iter__():
            Watched.looked_at += 1
            yield each


VALUES = {"null": None, "text": "", "message": {"content": None}, "number": 1.5, "list": Watched([None] * 1000)}


@pytest.mark.parametrize("element", VALUES.values(), ids=VALUES)
def test_a_prompt_of_more_values_than_any_has_is_not_read_to_its_end(
    element: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "looked_at", 0)
    document = {"messages": Watched([element] * (5 * MOST_VALUES)), "prompt": "x" * 400}
    tokens(document)
    traits(document, {}, Needs(prefix=True), model="m", image_tokens=0, output_tokens=0)
    assert Watched.looked_at <= 5 * MOST_VALUES


def test_the_type_of_a_part_is_looked_at_when_it_is_a_word() -> None:
    assert tokens({"messages": [{"type": ["image"], "content": "x" * 40}]}) == 10


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "text", "type", "max_tokens"]), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "max_tokens", "instructions"]), JSON))
def test_no_document_breaks_the_estimate(document: dict[str, Any]) -> None:
    assert tokens(document) >= 1


def test_what_nests_without_end_is_not_followed() -> None:
    endless: dict[str, Any] = {}
    endless["content"] = [endless]
    assert tokens({"messages": [endless]}) == 1
