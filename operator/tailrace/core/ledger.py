"""Every attempt in flight: one table, and a counter on the endpoint. Picked means in flight."""

from __future__ import annotations

from tailrace.core.endpoint import Endpoint
from tailrace.core.meter import Work


class Attempt:
    """One try of one request at one endpoint; it never leaves the core.

    ``work`` is what it asks of an endpoint that has a meter.
    """

    __slots__ = ("endpoint", "expires_at", "first_byte_at", "id", "started_at", "work")

    def __init__(self, attempt_id: str, endpoint: Endpoint, started_at: float, expires_at: float | None) -> None:
        self.id = attempt_id
        self.endpoint = endpoint
        self.started_at = started_at
        self.first_byte_at: float | None = None
        self.expires_at = expires_at
        self.work: Work | None = None


class Ledger:
    """The attempts in flight, by id. Opening takes the endpoint's slot, closing frees it, exactly once each."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def __getitem__(self, attempt_id: str) -> Attempt:
        return self._attempts[attempt_id]

    def open(self, attempt_id: str, endpoint: Endpoint, now: float, expires_at: float | None = None) -> Attempt:
        """Book an attempt at the endpoint. The id must not be in flight."""
        attempt = Attempt(attempt_id, endpoint, now, expires_at)
        self._attempts[attempt_id] = attempt
        endpoint.take()
        return attempt

    def close(self, attempt: Attempt) -> None:
        """Book the end of an attempt that is in flight."""
        del self._attempts[attempt.id]
        attempt.endpoint.free()

    def get(self, attempt_id: str) -> Attempt | None:
        """Return the attempt, if it is in flight."""
        return self._attempts.get(attempt_id)

    def oldest(self) -> Attempt | None:
        """Return the attempt that has been in flight for the longest time."""
        return next(iter(self._attempts.values()), None)

    def at(self, uid: str) -> list[Attempt]:
        """Return the attempts at one endpoint, oldest first. Looks at every attempt: for deadlines and reports."""
        return [attempt for attempt in self._attempts.values() if attempt.endpoint.uid == uid]
