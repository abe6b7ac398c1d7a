"""What the strategy of a pool needs to know of a request, from its headers and its document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import cast

from tailrace.core.model import Needs, Traits
from tailrace.http.estimate import BYTES_PER_TOKEN, MOST_VALUES, allowed_tokens, prompt_tokens

BLOCK_TOKENS = 128
BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN
MOST_BLOCKS = 1024
"""Prompts are told apart by their first 128k tokens."""

LONGEST_SESSION = 128
"""A hundred thousand sessions are remembered by their names."""

_IN_ORDER = ("instructions", "system", "messages", "prompt", "input")
"""The fields of a prompt in the order in which engines put them together."""

_OF_PARTS = ("role", "content", "text", "output", "image_url")
_PICTURES = frozenset({"image_url"})
_MAX_DEPTH = 4
"""messages -> message -> content -> part: deeper than that there is no text in any of the APIs."""


def traits(
    document: Mapping[str, object],
    headers: Mapping[str, str],
    needs: Needs,
    *,
    model: str,
    image_tokens: int,
    output_tokens: int,
) -> Traits:
    """Return what is needed and nothing else; ``model`` is the name asked for, which may be that of an adapter.

    An image counts ``image_tokens``, an answer ``output_tokens`` at most.
    """
    return Traits(
        prompt_tokens=prompt_tokens(document, image_tokens) if needs.lengths else 0,
        output_tokens=allowed_tokens(document, output_tokens) if needs.lengths else 0,
        session=session_of(headers.get(needs.session_header, "")) if needs.session_header else "",
        prefix=_prefix(document, model) if needs.prefix else None,
        chain=_chain(document, model, image_tokens) if needs.chain else (),
        streams=document.get("stream") is True,
    )


def session_of(told: str) -> str:
    """Return by what a session is remembered: as it was told, or the hash of what is long or no ASCII.

    Every machine agrees on it. A header may have tens of kilobytes, and bytes that are no text.
    """
    if told.isascii() and len(told) <= LONGEST_SESSION:
        return told
    return blake2b(told.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _prefix(document: Mapping[str, object], model: str) -> int | None:
    """Return a hash of the first block of the prompt, or of all of it when it is shorter; None without a prompt.

    It is the same on every machine. Models and adapters share no prefixes.
    """
    block = _first_bytes(document, BLOCK_BYTES)
    if not block:
        return None
    name = blake2b(model.encode(errors="surrogatepass"), digest_size=16).digest()
    return int.from_bytes(blake2b(block, digest_size=8, key=name).digest(), "big")


def _chain(document: Mapping[str, object], model: str, image_tokens: int) -> tuple[int, ...]:
    """Return a hash for each whole block of the prompt, each covering all before it; for this process alone.

    The built-in hash is keyed anew in every process, so nobody can make prompts that collide.
    """
    prompt = _first_bytes(document, MOST_BLOCKS * BLOCK_BYTES, image_tokens * BYTES_PER_TOKEN)
    chain: list[int] = []
    last = hash(model)
    for start in range(0, len(prompt) - BLOCK_BYTES + 1, BLOCK_BYTES):
        last = hash((last, prompt[start : start + BLOCK_BYTES]))
        chain.append(last)
    return tuple(chain)


def _first_bytes(document: Mapping[str, object], most: int, picture_bytes: int = 0) -> bytes:
    """Return the beginning of the prompt as bytes, ``most`` at most; it is read no further than that.

    A picture is as long as its tokens would be, if that is given, whatever its own bytes.
    """
    parts: list[bytes] = []
    size = 0
    left = iter(range(MOST_VALUES))
    for field in _IN_ORDER:
        for piece in _pieces(document.get(field), _MAX_DEPTH, most, picture_bytes, left):
            parts.append(piece)
            size += len(piece)
            if size >= most:
                return b"".join(parts)[:most]
    return b"".join(parts)


def _pieces(value: object, depth: int, most: int, picture_bytes: int, left: Iterator[int]) -> Iterator[bytes]:
    """Yield what a prompt is made of in order, each piece marked as one; of a text no more than ``most``.

    ``left`` ends the looking.
    """
    if next(left, None) is None:
        return
    if isinstance(value, str):
        yield b"\n" + value[:most].encode("utf-8", "surrogatepass")
    elif isinstance(value, int):
        yield b" %d" % value
    elif isinstance(value, list) and depth > 0:
        yield from _elements(value, depth, most, picture_bytes, left)
    elif isinstance(value, dict) and depth > 0:
        for name in _OF_PARTS:
            if name in _PICTURES and name in value:
                yield _picture(value[name], picture_bytes)
            elif name in value:
                yield from _pieces(value[name], depth - 1, most, picture_bytes, left)


def _elements(value: list[object], depth: int, most: int, picture_bytes: int, left: Iterator[int]) -> Iterator[bytes]:
    """Yield the pieces of a list; one of numbers, which is a prompt in tokens, is one piece."""
    numbers = value[: most // 2]  # each takes two bytes at least
    if all(isinstance(number, int) for number in numbers):
        yield b"".join([b" %d" % number for number in cast("list[int]", numbers)])
        return
    for part in islice(value, MOST_VALUES):
        yield from _pieces(part, depth - 1, most, picture_bytes, left)


def _picture(value: object, size: int) -> bytes:
    """Return what stands for a picture: the hash of its address or its bytes, repeated."""
    address = value.get("url") if isinstance(value, dict) else value
    content = address.encode("utf-8", "surrogatepass") if isinstance(address, str) else b""
    digest = blake2b(content, digest_size=32).digest()
    return digest * max(1, size // len(digest))
