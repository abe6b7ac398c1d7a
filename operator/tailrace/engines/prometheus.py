"""A small, tolerant reader of the Prometheus text format: only the samples asked for, in one pass."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

MOST_SAMPLES = 10_000
"""More than that of the wanted kind is no page of an engine, and takes long to read."""
PIECE_BYTES = 64 * 1024
"""What is read in one go takes less than 20 ms, whatever stands there. No line of an engine is longer."""

_SAMPLE = re.compile(
    r"""\s*(?P<name>[A-Za-z_:][\w:]*)\s*
        (?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?
        \s*(?P<value>\S+)?""",
    re.VERBOSE,
)
# Begun at whole words only: from each letter of a long one it would look to its end again.
_LABEL = re.compile(r'\b(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of an exposition. `labels` keep their escapes; `value` is NaN when the line cannot be read."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def pieces(body: bytes) -> Iterator[str]:
    """Yield a page's text in parts of whole lines; ValueError at a line that is longer than a part may be."""
    start = 0
    while len(body) - start > PIECE_BYTES:
        end = body.rfind(b"\n", start, start + PIECE_BYTES) + 1
        if not end:
            raise ValueError(f"it holds a line of more than {PIECE_BYTES} bytes")
        yield body[start:end].decode(errors="replace")
        start = end
    yield body[start:].decode(errors="replace")


def samples(text: str, names: frozenset[str]) -> Iterator[Sample]:
    """Yield the samples whose metric name is in `names`, in the order of `text`; every other line is skipped.

    Lines are found by one search for all names: an engine shows hundreds of them, mostly of histograms, and a router
    reads hundreds of engines a second.
    """
    for line in _lines_of(names).findall("\n" + text):
        match = _SAMPLE.match(line)
        if match and match["name"] in names:
            yield Sample(match["name"], _number(match["value"]), dict(_LABEL.findall(match["labels"] or "")))


@cache
def _lines_of(names: frozenset[str]) -> re.Pattern[str]:
    """Return what finds the lines that begin with one of a family's names."""
    return re.compile(rf"\n[ \t]*((?:{'|'.join(map(re.escape, sorted(names)))})[^\n]*)")


def _number(text: str | None) -> float:
    """Read a sample's value; what is no number is NaN, because a dropped sample would look like an idle engine."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan
