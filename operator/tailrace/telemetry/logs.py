"""Logs: one JSON object a line for machines, one plain line for people at a terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else on one was given as ``extra`` and belongs in the line."""


def set_up(level: str = "INFO", *, as_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send every record of ``level`` and above to ``stream`` (standard error), replacing what was set up before.

    ``as_json`` None: JSON unless the stream is a terminal.
    """
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    plain = stream.isatty() if as_json is None else not as_json
    handler.setFormatter(PlainFormatter() if plain else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (UTC, RFC 3339), level, logger, message, what was given as extra, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class PlainFormatter(logging.Formatter):
    """Time of day, level, logger, message, and what was given as extra as ``key=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        """Return the line without the exception."""
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        return super().formatMessage(record) + extra


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}
