"""The leases that this replica gave: their ends and renewals as JSON, for whichever door is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from tailrace.core.model import Outcome
from tailrace.core.router import Completion, Router
from tailrace.http.errors import DoorError, bad_request
from tailrace.http.usage import given_usage

_OUTCOMES = {o.value: o for o in (Outcome.COMPLETED, Outcome.FAILED, Outcome.CLIENT_GONE)}

COMPLETE, RENEW = "complete", "renew"


class Given:
    """Both calls return None when this replica knows no such lease."""

    def __init__(self, router: Router, clock: Callable[[], float]) -> None:
        self._router = router
        self._clock = clock

    def call(self, name: str, attempt: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """Do COMPLETE or RENEW; ``document`` is the body that came with it. DoorError 400 when that is wrong."""
        return self._renew(attempt) if name == RENEW else self._complete(attempt, document)

    def _complete(self, attempt: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        done = self._router.complete(attempt, _outcome(document), self._clock(), given_usage(document))
        return None if done is Completion.UNKNOWN else {"request": attempt, "completed": done.value}

    def _renew(self, attempt: str) -> dict[str, Any] | None:
        now = self._clock()
        expires_at = self._router.renew(attempt, now)
        return None if expires_at is None else {"request": attempt, "expiresSeconds": int(expires_at - now)}


def _outcome(document: Mapping[str, Any]) -> Outcome:
    said = document.get("outcome", Outcome.COMPLETED.value)
    outcome = _OUTCOMES.get(said) if isinstance(said, str) else None
    if outcome is None:
        raise bad_request("outcome_invalid", f"'outcome' must be one of {', '.join(_OUTCOMES)}", "outcome")
    return outcome


def unknown(attempt: str) -> DoorError:
    """Return the answer about a lease that nobody knows."""
    return DoorError(
        HTTPStatus.NOT_FOUND,
        "request_not_found",
        f"no lease {attempt!r} is known: it ran out long ago, or the replica that gave it is gone; route again",
    )
