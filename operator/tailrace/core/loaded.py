"""Which LoRA adapters engines have loaded, as they say."""

from __future__ import annotations

from collections.abc import Collection

from tailrace.core.endpoint import Endpoint

MOST_HOLDERS = 64
"""An adapter that so many have is as good as everywhere: then it is not looked who has it."""


class Loaded:
    """The endpoints of a pool by the adapters that their engines work with."""

    def __init__(self) -> None:
        self._holders: dict[str, dict[Endpoint, None]] = {}
        self._adapters: dict[Endpoint, frozenset[str]] = {}

    def heard(self, endpoint: Endpoint) -> None:
        """Take in what is known of an endpoint now."""
        told = None if endpoint.reading is None else endpoint.reading.adapters
        if told != self._adapters.get(endpoint):
            self.forget(endpoint)
            if told:
                self._note(endpoint, told)

    def _note(self, endpoint: Endpoint, adapters: frozenset[str]) -> None:
        self._adapters[endpoint] = adapters
        for adapter in adapters:
            self._holders.setdefault(adapter, {})[endpoint] = None

    def forget(self, endpoint: Endpoint) -> None:
        """Leave an endpoint out."""
        for adapter in self._adapters.pop(endpoint, ()):
            holders = self._holders[adapter]
            del holders[endpoint]
            if not holders:
                del self._holders[adapter]

    def by(self, adapter: str) -> Collection[Endpoint]:
        """Return those who have it loaded; nobody when it is not known, or when they are too many to compare."""
        holders = self._holders.get(adapter, {})
        return holders if len(holders) <= MOST_HOLDERS else ()
