"""The gate's log: one line per step, `time event key=value ...`, and what counts as a step."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from tailrace.gate.protocol import Answer, Fault


class Log(Protocol):
    """Takes one step of the gate."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Record `event` with its `fields`."""
        ...


def stderr_log(event: str, /, **fields: object) -> None:
    """Write one line to stderr."""
    print(line(datetime.now(UTC), event, fields), file=sys.stderr, flush=True)


def line(moment: datetime, event: str, fields: Mapping[str, object]) -> str:
    """Format one step; values with blanks, quotes or line breaks are quoted so that a line stays a line."""
    pairs = (f"{key}={_value(value)}" for key, value in fields.items() if value is not None)
    return " ".join((moment.isoformat(timespec="milliseconds"), "tailrace-gate", event, *pairs))


def _value(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not set(text) & set(' "=')
    return text if plain else json.dumps(text)


class Story:
    """Turns what the routers say into few lines: changes of standing at once, counts at most every 5 seconds."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._standing: dict[str, str] = {}
        self._count: int | None = None
        self._count_at = float("-inf")

    def heard(self, router: str, word: Answer | Fault, now: float) -> None:
        """Tell a router's word at time `now` (seconds, monotonic) if it is news."""
        standing = word.why if isinstance(word, Fault) else f"{word.state} safe_to_delete={word.safe_to_delete}"
        if self._standing.get(router) != standing:
            self._standing[router] = standing
            self._tell(router, word)
        if isinstance(word, Answer) and word.in_flight != self._count and now - self._count_at >= 5:
            self._count, self._count_at = word.in_flight, now
            self._log("in-flight", count=word.in_flight, router=router)

    def _tell(self, router: str, word: Answer | Fault) -> None:
        if isinstance(word, Fault):
            self._log("router-failed", router=router, why=word.why)
        else:
            self._log("router-answered", router=router, state=word.state, safe_to_delete=word.safe_to_delete)
