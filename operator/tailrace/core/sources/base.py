"""What a source of candidates must do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tailrace.core.endpoint import Endpoint


class Source(Protocol):
    """Offers available endpoints, best first by its own rule, without looking at all of them.

    A source holds available endpoints only: the pool calls ``update`` when one is available and has changed, and
    ``remove`` when it no longer is. Both may be repeated.
    """

    def update(self, endpoint: Endpoint) -> None:
        """Take the endpoint in, or take note that its load changed."""
        ...

    def remove(self, endpoint: Endpoint) -> None:
        """Leave the endpoint out until it is updated again."""
        ...

    def offer(self) -> Iterator[Endpoint]:
        """Yield each available endpoint at most once, best first. Nothing else is called while it is read."""
        ...

    def took(self, endpoint: Endpoint) -> None:
        """Take note that the endpoint was picked."""
        ...
