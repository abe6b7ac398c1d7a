"""What the strategy of a pool needs to know of a request, from its headers and its document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b

from tailrace.core.model import Needs, Traits
from tailrace.http.estimate import BYTES_PER_TOKEN, allowed_tokens, prompt_tokens

BLOCK_TOKENS = 128
BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN

_IN_ORDER = ("instructions", "system", "messages", "prompt", "input")
"""The fields of a prompt in the order in which engines put them together."""

_OF_PARTS = ("role", "content", "text", "output", "image_url", "url")
_MAX_DEPTH = 6
"""messages -> message -> content -> part -> image_url -> url: deeper than that there is nothing in any of the APIs."""


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
        session=headers.get(needs.session_header, "") if needs.session_header else "",
        prefix=_prefix(document, model) if needs.prefix else None,
    )


def _prefix(document: Mapping[str, object], model: str) -> int | None:
    """Return a hash of the first block of the prompt, or of all of it when it is shorter; None without a prompt.

    It is the same on every machine. Models and adapters share no prefixes.
    """
    block = _beginning(document)
    if not block:
        return None
    name = blake2b(model.encode(errors="surrogatepass"), digest_size=16).digest()
    return int.from_bytes(blake2b(block, digest_size=8, key=name).digest(), "big")


def _beginning(document: Mapping[str, object]) -> bytes:
    """Return the first block of the prompt as bytes; it is read no further than that."""
    block = b""
    for field in _IN_ORDER:
        for piece in _pieces(document.get(field), _MAX_DEPTH):
            block += piece
            if len(block) >= BLOCK_BYTES:
                return block[:BLOCK_BYTES]
    return block


def _pieces(value: object, depth: int) -> Iterator[bytes]:
    """Yield what a prompt is made of in order, each piece marked as one; none is longer than a block needs."""
    if isinstance(value, str):
        yield b"\n" + value[:BLOCK_BYTES].encode("utf-8", "surrogatepass")
    elif isinstance(value, int):
        yield b" %d" % value
    elif isinstance(value, list | dict) and depth > 0:
        for part in value if isinstance(value, list) else _fields(value):
            yield from _pieces(part, depth - 1)


def _fields(part: Mapping[str, object]) -> Iterator[object]:
    """Yield the fields of a message, or of a part of one, that its text is made of."""
    return (part[name] for name in _OF_PARTS if name in part)
