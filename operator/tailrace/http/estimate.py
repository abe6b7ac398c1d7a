"""About how many tokens a request will take: its text at four bytes a token, its images, and its answer. Pure.

An estimate is enough: it sorts long prompts from short ones and weighs load. What has an unexpected shape counts
nothing here; the engine will refuse it in its own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

BYTES_PER_TOKEN = 4

MOST_VALUES = 20_000
"""So many texts, objects and lists of a prompt are looked at: no conversation has more, and millions take seconds."""

_TEXT_FIELDS = ("messages", "prompt", "input", "instructions", "system")
_OUTPUT_FIELDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_NESTED = ("content", "text", "output")
_MAX_DEPTH = 4
"""messages -> message -> content -> part: deeper than that there is no text in any of the APIs."""


def estimate(document: Mapping[str, object], *, image_tokens: int, output_tokens: int) -> int:
    """Return the estimated tokens of prompt and answer, at least 1.

    An image counts ``image_tokens``; the answer counts what the request allows it, ``output_tokens`` at most.
    """
    return max(1, prompt_tokens(document, image_tokens) + allowed_tokens(document, output_tokens))


def prompt_tokens(document: Mapping[str, object], image_tokens: int) -> int:
    """Return the estimated tokens of the prompt, 0 without one."""
    size = 0
    left = iter(range(MOST_VALUES))
    for field in _TEXT_FIELDS:
        if field in document:
            size += _bytes(document[field], image_tokens * BYTES_PER_TOKEN, _MAX_DEPTH, left)
    return -(-size // BYTES_PER_TOKEN)


def allowed_tokens(document: Mapping[str, object], limit: int) -> int:
    """Return how many tokens the answer may have, ``limit`` at most; 0 when the request does not say."""
    for name in _OUTPUT_FIELDS:
        asked = document.get(name)
        if isinstance(asked, int) and asked > 0:
            return min(asked, limit)
    return 0


def _bytes(value: object, image_bytes: int, depth: int, left: Iterator[int]) -> int:
    """Return the bytes of text in ``value``; a token id stands for the bytes of a token. ``left`` ends the looking."""
    if next(left, None) is None:
        return 0
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, int):
        return BYTES_PER_TOKEN
    if depth == 0:
        return 0
    if isinstance(value, list):
        if value and isinstance(value[0], int):
            return BYTES_PER_TOKEN * len(value)
        total = 0
        for part in islice(value, MOST_VALUES):
            total += _bytes(part, image_bytes, depth - 1, left)
        return total
    return _part_bytes(value, image_bytes, depth, left) if isinstance(value, dict) else 0


def _part_bytes(part: Mapping[str, object], image_bytes: int, depth: int, left: Iterator[int]) -> int:
    """Return the bytes of a message or of a part of one."""
    kind = part.get("type")
    if isinstance(kind, str) and "image" in kind:
        return image_bytes
    total = 0
    for name in _NESTED:
        if name in part:
            total += _bytes(part[name], image_bytes, depth - 1, left)
    return total
