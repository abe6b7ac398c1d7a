"""Marks: what a number must be to count as good enough, printed beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """One measured number and the most it may be, both in ``unit``. ``limit`` None: there is no mark for it."""

    what: str
    measured: float
    limit: float | None
    unit: str

    def __str__(self) -> str:
        measured = f"{self.what:<66}{self.measured:>10.4g} {self.unit:<5}"
        return measured.rstrip() if self.limit is None else f"{measured} <= {self.limit:<6g} {self._verdict()}"

    def _verdict(self) -> str:
        met = self.limit is None or self.measured <= self.limit
        return "met" if met else "NOT MET"


def show(marks: Iterable[Mark]) -> None:
    """Print one line a mark."""
    print(f"\n{'mark':<66}{'measured':>10}       at most")
    for mark in marks:
        print(mark, flush=True)
