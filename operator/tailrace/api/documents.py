"""YAML text to JSON values, read the way kubectl reads it: what it would refuse is refused here, with the line.

Scalars follow YAML 1.1 as kubectl does (`yes` is true, `010` is 8), but a date stays text. Tags that build objects are
refused. Keys that stand twice are refused. Anchors work, within a budget, so that a small text can't become a huge one.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_DEPTH: Final = 100
MAX_NODES: Final = 200_000
"""Values of one document, anchors written out: several times what fits into etcd."""

MAX_BITS: Final = 64
"""Of a whole number."""

MAX_SHOWN: Final = 60
"""Characters of a bad value that an error shows."""

TAG: Final = "tag:yaml.org,2002:"
MERGE: Final = f"{TAG}merge"
TRUE: Final = frozenset({"y", "yes", "true", "on"})
SCALARS: Final = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"[yYnN]|yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
)


class DocumentError(ValueError):
    """A text that can't be read; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: the line where it begins (from 1), and its value or why there is none."""

    line: int
    value: object = None
    error: DocumentError | None = None


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own form)


for _name, _pattern, _first in SCALARS:
    _starts = ["" if char == "\0" else char for char in _first]
    _Loader.add_implicit_resolver(f"{TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), _starts)


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
    value = int(f"{octal[1]}0o{octal[2]}" if octal else digits, 0)
    if value.bit_length() > MAX_BITS:
        raise OverflowError(text)
    return value


def _number(text: str) -> int | float:
    value = float(text.replace("_", ""))
    if not math.isfinite(value):
        raise OverflowError(text)
    return int(value) if value.is_integer() else value


Scalar = str | int | float | bool | None
CONVERT: Final[dict[str, Callable[[str], Scalar]]] = {
    f"{TAG}null": lambda text: None,  # noqa: ARG005
    f"{TAG}bool": lambda text: text.lower() in TRUE,
    f"{TAG}int": _integer,
    f"{TAG}float": _number,
    f"{TAG}str": str,
}


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


class _Reader:
    """Turns the nodes of one document into values and keeps its budget."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def value(self, node: Node, depth: int = 0) -> Any:  # noqa: ANN401  (any JSON value)
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise DocumentError("nested too deeply or too large once its anchors are written out", _line(node))
        if isinstance(node, MappingNode) and node.tag == f"{TAG}map":
            return self._mapping(node, depth)
        if isinstance(node, SequenceNode) and node.tag == f"{TAG}seq":
            return [self.value(item, depth + 1) for item in node.value]
        return _scalar(node)

    def _mapping(self, node: Node, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, child in node.value:
            if key.tag == MERGE:
                merged = {**self._merged(child, depth), **merged}
                continue
            name = _key(key)
            if name in own:
                raise DocumentError(f"the field {name} stands twice in one mapping; take one out", _line(key))
            own[name] = self.value(child, depth + 1)
        return {**merged, **own}

    def _merged(self, node: Node, depth: int) -> dict[str, Any]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        result: dict[str, Any] = {}
        for source in sources:
            value = self.value(source, depth + 1)
            if not isinstance(value, dict):
                raise DocumentError("<< must be given a mapping", _line(source))
            result = {**value, **result}
        return result


def _key(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        raise DocumentError("a field's name must be a plain word", _line(node))
    return str(node.value)


def _scalar(node: Node) -> Scalar:
    convert = CONVERT.get(node.tag)
    if convert is None or not isinstance(node, ScalarNode):
        raise DocumentError(f"the tag {node.tag} is not allowed; write a plain value", _line(node))
    try:
        return convert(str(node.value))
    except (ValueError, OverflowError):
        raise DocumentError(f"{_short(node.value)!r} is not a number, or too large", _line(node)) from None


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _read(node: Node) -> Document:
    try:
        return Document(_line(node), _Reader().value(node))
    except DocumentError as error:
        return Document(_line(node), error=error)


def _syntax(error: yaml.YAMLError) -> Document:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be read"
    return Document(line, error=DocumentError(f"not YAML: {said}", line))


def read_documents(text: str) -> Iterator[Document]:
    """Read every document of `text`; empty ones are skipped, and a syntax error ends the text."""
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            document = _read(node)
            if document.error or document.value is not None:
                yield document
    except yaml.YAMLError as error:
        yield _syntax(error)
    except RecursionError:
        yield Document(1, error=DocumentError("nested too deeply", 1))
    except OverflowError:  # PyYAML's own, of an escape
        yield Document(
            1, error=DocumentError("an escape \\U stands for no character; there are none above \\U0010FFFF", 1)
        )
