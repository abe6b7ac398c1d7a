"""How endpoints compare."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tailrace.core.endpoint import RANK_BITS, Endpoint

_RATIO_BITS = 20
RATIO_WIDTH = _RATIO_BITS + 1
"""The width of a load ratio: capacity may shrink below what is in flight, but not to half of it for long."""


class Order(ABC):
    """The smaller key comes first, then the smaller tie. Both are whole numbers, so that no order is one of rounding.

    A class of its own for each order and no function: compiled code calls a method directly, and a function by way of
    Python.
    """

    @abstractmethod
    def key(self, endpoint: Endpoint) -> int:
        """Return what changes with the endpoint's load. Compiled code is fast with keys below 2**30."""

    def tie(self, endpoint: Endpoint) -> int:
        """Return a number of the endpoint's own, which stays the same while the endpoint is in a pool."""
        return endpoint.rank

    def of(self, endpoint: Endpoint) -> int:
        """Return key and tie as one number, with the endpoint's rank in the low bits."""
        return (self.key(endpoint) << RANK_BITS) | endpoint.rank


class ByLoadRatio(Order):
    """The least in-flight / capacity wins, then the rank. At equal ratio most available memory is most memory."""

    def key(self, endpoint: Endpoint) -> int:
        """Return the ratio in steps of 2**-20, rounded down.

        Two different fractions with denominators up to 1000 differ by at least one step, so the order is exact.
        """
        return (endpoint.in_flight << _RATIO_BITS) // endpoint.capacity


BY_LOAD_RATIO = ByLoadRatio()
