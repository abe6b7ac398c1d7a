"""Server-sent events as bytes: where one ends, and the last one of a stream that had to be ended early. Pure."""

from __future__ import annotations

TAIL_BYTES = 4
"""How many of the last bytes of a stream tell whether an event has ended: two line ends of two bytes each."""


def tail(before: bytes, chunk: bytes) -> bytes:
    """Return the last bytes of a stream whose tail was ``before`` and that has grown by ``chunk``."""
    return chunk[-TAIL_BYTES:] if len(chunk) >= TAIL_BYTES else (before + chunk)[-TAIL_BYTES:]


def event_ended(last: bytes) -> bool:
    """Whether a stream with this tail is between two events: nothing came yet, or the last line was blank."""
    return not last or last.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")


def last_event(last: bytes, error: bytes) -> bytes:
    """Return what ends a stream with this tail: the event in hand is closed, then one with the error follows."""
    return (b"" if event_ended(last) else b"\n\n") + b"data: " + error + b"\n\n"
