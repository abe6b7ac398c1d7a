"""A study as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.simulate.study import Estimate, Row

_COLUMNS = (
    ("TTFT p50 s", "ttft50", 2, 1.0),
    ("p90", "ttft90", 2, 1.0),
    ("p99", "ttft99", 2, 1.0),
    ("ITL ms", "itl", 1, 1000.0),
    ("prefix hits %", "hits", 1, 100.0),
    ("busiest", "busiest", 2, 1.0),
    ("waited %", "waited", 1, 100.0),
)
_NAME = 28
_WIDTH = 16


def table(title: str, rows: Sequence[Row]) -> str:
    """Return the rows under a title; each figure with the half-width of its 95 % interval, when there are seeds."""
    head = f"{'strategy':<{_NAME}}" + "".join(f"{name:>{_WIDTH}}" for name, *_ in _COLUMNS)
    return "\n".join([title, head, *(_line(row) for row in rows), ""])


def _line(row: Row) -> str:
    cells = (_cell(row.estimate(name), digits, unit) for _, name, digits, unit in _COLUMNS)
    return f"{row.strategy:<{_NAME}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _cell(estimate: Estimate, digits: int, unit: float) -> str:
    mean = f"{estimate.mean * unit:.{digits}f}"
    return f"{mean} ±{estimate.within * unit:.{digits}f}" if estimate.within else mean
