"""Replace the model's name in the bytes of a JSON document and nothing else. Pure.

Only values of the key ``model`` of the outermost object are replaced; a key of that name further inside, or inside a
string, is not one. A document may name the key twice: parsers differ in which one they take, so each is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tailrace.http.errors import too_complex

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb"[^,\]}\s]++")
_TEXT = rb'"[^"\\]{0,4096}+(?:\\.[^"\\]{0,4096}+)*+"'
_LEAF = rb'[{\[](?:[^"{}\[\]]++|' + _TEXT + rb")*+[}\]]"
_RUN = re.compile(rb'(?:[^"{}\[\]]++|' + _TEXT + rb"|" + _LEAF + rb")*+", re.DOTALL)
"""All that comes before the next bracket to be counted, or long text: found in one go, values may be millions."""
_OPENING = b"{["

MAX_FIELDS = 10_000
"""Of the outermost object: each costs a few microseconds on the loop."""


def replace_model(document: bytes, name: str) -> bytes:
    """Return the document with every outermost ``model`` value replaced by ``name``.

    ``document`` must be valid JSON whose outermost value is an object; ValueError otherwise, as far as it is noticed.
    DoorError 413 when that has more fields than anybody needs.
    """
    value = json.dumps(name).encode()
    parts: list[bytes] = []
    copied = 0
    for start, end in _model_values(document):
        parts += [document[copied:start], value]
        copied = end
    return b"".join([*parts, document[copied:]])


def _model_values(document: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each value of an outermost key ``model`` starts and ends."""
    at = _expect(document, _blank(document, 0), b"{")
    fields = 0
    while not document.startswith(b"}", at):
        key_end = _end(_STRING, document, at)
        start = _blank(document, _expect(document, _blank(document, key_end), b":"))
        end = _value_end(document, start)
        if _is_model(document[at:key_end]):
            yield start, end
        fields += 1
        if fields > MAX_FIELDS:
            raise too_complex(f"the body has more than {MAX_FIELDS} fields")
        at = _blank(document, end)
        if document.startswith(b",", at):
            at = _blank(document, at + 1)


def _is_model(key: bytes) -> bool:
    return key == b'"model"' or (b"\\" in key and json.loads(key) == "model")


def _value_end(document: bytes, start: int) -> int:
    first = document[start : start + 1]
    if first == b'"':
        return _string_end(document, start)
    if first in (b"{", b"["):
        return _nested_end(document, start)
    return _end(_SCALAR, document, start)


def _nested_end(document: bytes, start: int) -> int:
    depth, at = 0, start
    while at < len(document):
        if document.startswith(b'"', at):
            at = _string_end(document, at)
        else:
            depth += 1 if document[at] in _OPENING else -1
            at += 1
            if depth == 0:
                return at
        at = _end(_RUN, document, at)
    raise ValueError("the JSON document ends inside an object or a list")


def _string_end(document: bytes, start: int) -> int:
    """Return the end of a string; that of a picture, which has no escapes, without a look at each byte."""
    end = document.find(b'"', start + 1) + 1
    return end if end and document.find(b"\\", start, end) < 0 else _end(_STRING, document, start)


def _blank(document: bytes, at: int) -> int:
    return _end(_SPACE, document, at)


def _expect(document: bytes, at: int, sign: bytes) -> int:
    """Return where to go on after ``sign`` and the white space that follows it."""
    if not document.startswith(sign, at):
        raise ValueError(f"not a JSON object: expected {sign.decode()!r} at byte {at}")
    return _blank(document, at + 1)


def _end(pattern: re.Pattern[bytes], document: bytes, at: int) -> int:
    found = pattern.match(document, at)
    if found is None:
        raise ValueError(f"not a JSON document: nothing fits at byte {at}")
    return found.end()
