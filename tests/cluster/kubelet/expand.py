"""Text rules of container specs: `$(VAR)` references, and mount paths that become folders of the host."""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_PATH_CHARACTER = r"[A-Za-z0-9._\-/]"


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable's value; `$$` gives `$`, an unknown name stays as it is written."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else variables.get(name, match.group(0))

    return _REFERENCE.sub(value, text)


class MountPaths:
    """Rewrites the mount paths that occur in a text into the host's folders: a process has no mount namespace."""

    def __init__(self, mounts: Mapping[str, str]) -> None:
        self._mounts = {path.rstrip("/"): host for path, host in mounts.items() if path.rstrip("/")}
        longest_first = sorted(self._mounts, key=len, reverse=True)
        alternatives = "|".join(re.escape(path) for path in longest_first)
        pattern = rf"(?<!{_PATH_CHARACTER})({alternatives})(?=/|(?!{_PATH_CHARACTER}))"
        self._pattern = re.compile(pattern) if longest_first else None

    def rewrite(self, text: str) -> str:
        """Return `text` with every whole mount path, or the mount path at the head of a longer path, replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._mounts[match.group(1)], text)
