"""Which of several equal endpoints comes first."""

from __future__ import annotations

from random import Random

from tailrace.core.endpoint import MEMORY_BITS, RANK_BITS, Endpoint
from tailrace.core.order import Order

_OWN_BITS = 16
_OWN = (1 << _OWN_BITS) - 1
_BELOW_MEMORY = RANK_BITS - MEMORY_BITS


class Ties:
    """The most GPU memory, then an order that every replica of the router draws for itself.

    Replicas do not see each other's requests. If all of them took the same one of the endpoints that look idle, that
    one would not be idle, and others would be.
    """

    __slots__ = ("_factor",)

    def __init__(self, rng: Random) -> None:
        self._factor = rng.getrandbits(32) | 1

    def order(self, key: int, endpoint: Endpoint) -> int:
        """Return a number that is ordered by the key first, unique by the endpoint's rank in its low bits."""
        memory = endpoint.rank >> _BELOW_MEMORY
        own = (endpoint.added + 1) * self._factor & _OWN
        return ((((key << MEMORY_BITS) | memory) << _OWN_BITS | own) << RANK_BITS) | endpoint.rank

    @staticmethod
    def key(order: int) -> int:
        """Return the key that a number of ``order`` was made of."""
        return order >> MEMORY_BITS + _OWN_BITS + RANK_BITS


class TiedOrder(Order):
    """An order in which ``ties`` decide between equal keys."""

    def __init__(self, ties: Ties) -> None:
        self._ties = ties

    def tie(self, endpoint: Endpoint) -> int:
        """Return the endpoint's number among those of equal keys."""
        return self._ties.order(0, endpoint)

    def of(self, endpoint: Endpoint) -> int:
        """Return key and tie as one number."""
        return self._ties.order(self.key(endpoint), endpoint)
