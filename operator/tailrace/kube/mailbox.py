"""Observations on their way to the parent, coalesced: of each thing only the newest is worth telling."""

from __future__ import annotations

import asyncio

from tailrace.core.model import EndpointGone, EndpointSeen, Observation, ServerGone, ServerSeen, Snapshot


class Mailbox:
    """Keeps the newest observation of each server and endpoint until it is taken."""

    def __init__(self) -> None:
        self._pending: dict[str, Observation] = {}
        self._waiting = asyncio.Event()

    def put(self, observation: Observation) -> None:
        """Add an observation; a snapshot replaces everything before it."""
        if isinstance(observation, Snapshot):
            self._pending.clear()
        self._pending[_subject(observation)] = observation
        self._waiting.set()

    async def take(self, limit: int) -> tuple[Observation, ...]:
        """Wait until there is something, then return at most ``limit`` observations, oldest first."""
        await self._waiting.wait()
        batch = [(subject, self._pending[subject]) for subject in list(self._pending)[:limit]]
        for subject, _ in batch:
            del self._pending[subject]
        if not self._pending:
            self._waiting.clear()
        return tuple(observation for _, observation in batch)


def _subject(observation: Observation) -> str:
    match observation:
        case ServerSeen(spec=spec):
            return f"server {spec.key}"
        case ServerGone(key=key):
            return f"server {key}"
        case EndpointSeen(spec=endpoint):
            return f"endpoint {endpoint.uid}"
        case EndpointGone(uid=uid):
            return f"endpoint {uid}"
        case Snapshot():
            return "snapshot"
