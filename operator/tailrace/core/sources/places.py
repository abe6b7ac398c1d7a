"""Small numbers for the members of a row."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

PLACE_BITS = 32
_ALL = 1 << PLACE_BITS
_PART = 8
"""Newcomers take this part of the room, not half of it: who was added later comes later among equals, so most of them
come one behind the other."""


class Places:
    """Places of ``PLACE_BITS`` bits in the order of ties, which may be of any size. Gaps are left for those to come."""

    def __init__(self) -> None:
        self._ties: list[int] = []
        self._places: list[int] = []

    def enter(self, tie: int) -> int | None:
        """Return the place of a newcomer; None: it got none, because all have to be spread for it."""
        at = bisect_left(self._ties, tie)
        before = self._places[at - 1] if at else -1
        behind = self._places[at] if at < len(self._places) else _ALL
        room = behind - before
        if room < 2:
            return None
        place = before + max(1, room // _PART)
        self._ties.insert(at, tie)
        self._places.insert(at, place)
        return place

    def leave(self, tie: int) -> None:
        """Give the place of one that has one free."""
        at = bisect_left(self._ties, tie)
        del self._ties[at], self._places[at]

    def spread(self, newcomers: Iterable[int]) -> dict[int, int]:
        """Give everyone another place, newcomers included, with equal gaps between; return the places by tie."""
        self._ties = sorted([*self._ties, *newcomers])
        gap = _ALL // (len(self._ties) + 1)
        self._places = [gap * number for number in range(1, len(self._ties) + 1)]
        return dict(zip(self._ties, self._places, strict=True))
