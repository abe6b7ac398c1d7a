"""Who may be asked to stop when: regular containers at once, native sidecars after them in reverse order."""

import asyncio
from collections.abc import Iterable, Mapping


def prerequisites(containers: Iterable[str], sidecars: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return for every sidecar (given in starting order) the names whose end it waits for."""
    regular = tuple(containers)
    reverse = list(reversed(list(sidecars)))
    return {name: regular + tuple(reverse[:number]) for number, name in enumerate(reverse)}


class Turns:
    """One termination of one pod: sidecars wait here until everything before them has ended."""

    def __init__(self, waits_for: Mapping[str, tuple[str, ...]], running: Iterable[str]) -> None:
        self._waits_for = waits_for
        self._ended = {name: asyncio.Event() for name in running}

    def ended(self, name: str) -> None:
        """Say that a container has been stopped."""
        self._ended[name].set()

    async def wait(self, name: str) -> None:
        """Return when it is this container's turn; containers that did not run hold nobody up."""
        for other in self._waits_for.get(name, ()):
            if other in self._ended:
                await self._ended[other].wait()
