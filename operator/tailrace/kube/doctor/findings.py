"""What an examination finds: how bad it is, what is wrong in a sentence, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PAGE: Final = "docs/troubleshooting.md"


class Severity(StrEnum):
    """ERROR: requests, drains or writes fail. WARNING: they may. OK: nothing to mend."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about the installation. ``commands`` mend it or lead on, in order; ``anchor`` is one of ``PAGE``."""

    severity: Severity
    check: str
    about: str
    message: str
    advice: str = ""
    commands: tuple[str, ...] = ()
    anchor: str = ""

    def view(self) -> dict[str, object]:
        """Return the finding as a JSON document."""
        return {
            "severity": self.severity.value,
            "check": self.check,
            "about": self.about,
            "message": self.message,
            "advice": self.advice,
            "commands": list(self.commands),
            "page": f"{PAGE}#{self.anchor}" if self.anchor else None,
        }


Findings = Iterator[Finding]


def well(check: str, about: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(severity=Severity.OK, check=check, about=about, message=message)


def all_well(findings: Iterable[Finding]) -> bool:
    """Whether there is nothing to mend."""
    return all(finding.severity is Severity.OK for finding in findings)
