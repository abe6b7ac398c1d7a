"""What the health endpoints report: named checks for each of Kubernetes' three questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is well or not, with what is wrong in words."""

    name: str
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The checks behind ``/livez``, ``/readyz`` and ``/startupz``. No checks: all is well."""

    live: tuple[Check, ...] = ()
    ready: tuple[Check, ...] = ()
    started: tuple[Check, ...] = ()


def report(checks: Iterable[Check], *, verbose: bool) -> tuple[bool, str]:
    """Return whether all is well, and the text to answer: every check when ``verbose``, else those that fail."""
    checks = tuple(checks)
    well = all(check.ok for check in checks)
    lines = [_line(check) for check in checks if verbose or not check.ok]
    return well, "\n".join([*lines, "ok" if well else "failed"]) + "\n"


def _line(check: Check) -> str:
    mark = "[+]" if check.ok else "[-]"
    return f"{mark}{check.name} {'ok' if check.ok else 'failed'}" + (f": {check.message}" if check.message else "")
