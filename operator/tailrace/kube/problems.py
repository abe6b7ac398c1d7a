"""What reconcilers found wrong and a person should know: kept by InferenceServer until it is mended. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing: a CamelCase reason, and a sentence with the field and what to do."""

    reason: str
    message: str


class Problems:
    """The problems of each server by who found them. ``changed`` is told the key of a server whose problems change."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._found: dict[str, dict[str, tuple[Problem, ...]]] = {}

    def report(self, key: str, finder: str, *problems: Problem) -> None:
        """Replace what this finder knows of this server; none means that all is well."""
        if self._found.get(key, {}).get(finder, ()) == problems:
            return
        self._found.setdefault(key, {})[finder] = problems
        self._changed(key)

    def of(self, key: str) -> tuple[Problem, ...]:
        """Return all problems of a server."""
        return tuple(problem for problems in self._found.get(key, {}).values() for problem in problems)

    def forget(self, key: str) -> None:
        """Forget a server that is gone."""
        self._found.pop(key, None)
