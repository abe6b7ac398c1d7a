"""What a source of candidates must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Request

ANY = Request("")
"""Stands for a request of which nothing is known: the pick of those who have none to show."""


class Source(ABC):
    """Offers available endpoints, best first by its own rule, without looking at all of them.

    A source holds available endpoints only: ``update`` is called when one becomes available, or is and its load fell;
    ``remove`` when it no longer is. Both may be repeated. A load that grew is not told: a source looks for itself.
    """

    counts_picks: ClassVar[bool] = False
    """Whether the rule depends on who was picked: then ``took`` is called for every pick of the pool."""

    @abstractmethod
    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its load fell."""

    @abstractmethod
    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out until it is updated again."""

    @abstractmethod
    def forget(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out for good."""

    @abstractmethod
    def best(self) -> Endpoint | None:
        """Return the first that ``offer`` yields for any request, None when there is none."""

    @abstractmethod
    def offer(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield available endpoints for the request, each at most once, best first.

        Nothing else is called while it is read.
        """

    @abstractmethod
    def peek(self, request: Request = ANY, now: float = 0.0) -> Iterator[Endpoint]:
        """Yield what ``offer`` would, leaving everything as it is but chance; may look at every endpoint."""

    @abstractmethod
    def order(self, endpoint: Endpoint) -> int:
        """Return a number by which an endpoint, available or not, comes before another in ``offer``: the smaller."""

    @abstractmethod
    def took(self, endpoint: Endpoint) -> None:
        """Take note that the endpoint was picked."""
