"""The request log: what this server did, as JSON lines that a test joins with what its clients saw."""

import os
import time
from pathlib import Path
from typing import Any

import orjson


class RequestLog:
    """Appends one line per event, on disk when `write` returns, so that a killed server loses none.

    Every line has `time` (seconds since the epoch), `pid` and `event`: startup, ready, start, end, refused,
    sigterm, exit. Several servers may share one file. Without a path nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._pid = os.getpid()

    def write(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append a line."""
        if self._file is not None:
            line = {"time": time.time(), "pid": self._pid, "event": event, **fields}
            os.write(self._file, orjson.dumps(line) + b"\n")

    def close(self) -> None:
        """Close the file; later events are not written."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
