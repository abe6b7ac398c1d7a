"""What an engine says that it counted, from the last bytes of its answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tailrace.core.model import Usage

_PROMPT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,9})\b')
_OUTPUT = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,9})\b')
_CACHED = re.compile(rb'"cached_tokens"\s*:\s*(\d{1,9})\b')
"""The names of the chat, completion and embedding APIs, and of the responses API. In a text quotes are escaped."""


def read_usage(end: bytes) -> Usage | None:
    """Return what stands in the end of an answer, streamed or not; None when nothing does."""
    prompt, output, cached = (_last(pattern, end) for pattern in (_PROMPT, _OUTPUT, _CACHED))
    return None if prompt is None and output is None else Usage(prompt, output, cached)


def _last(pattern: re.Pattern[bytes], end: bytes) -> int | None:
    found = pattern.findall(end)
    return int(found[-1]) if found else None


def given_usage(document: Mapping[str, object]) -> Usage | None:
    """Return the ``usage`` of a document, as OpenAI spells it; None without one. What is no number counts nothing."""
    usage = document.get("usage")
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    return Usage(
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(usage, "completion_tokens", "output_tokens"),
        _count(details, "cached_tokens") if isinstance(details, Mapping) else None,
    )


def _count(usage: Mapping[str, object], *names: str) -> int | None:
    found = (usage.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and 0 <= value < 10**9), None)
