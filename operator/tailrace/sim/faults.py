"""`POST /faults`: things that go wrong with a real engine, on demand."""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import cast

from tailrace.sim.service import ABORTED, Service
from tailrace.sim.shapes.base import BadRequestError

DIED = 1
"""Exit status of a server that was told to die."""


class Faults:
    """The faults in force: `hang` (a hung engine), `slow` (a factor), `stall_request` (a stuck stream), `die`."""

    def __init__(self, service: Service, *, speed: float = 1.0, kill: Callable[[int], None] = os._exit) -> None:
        self._service = service
        self._speed = speed
        self._kill = kill
        self._state: dict[str, object] = {"hang": False, "slow": 1.0, "stall_request": None}
        self._moving = asyncio.Event()
        self._moving.set()

    def state(self) -> dict[str, object]:
        """Return the faults in force."""
        return dict(self._state)

    async def until_moving(self) -> None:
        """Return when the engine does not hang."""
        await self._moving.wait()

    def release(self) -> None:
        """Let those who wait for a hung engine go: the server is stopping."""
        self._moving.set()

    def apply(self, change: Mapping[str, object]) -> None:
        """Put `change` in force as a whole; raise BadRequestError naming a field that is wrong, and change nothing."""
        for name, value in change.items():
            if name not in CHECKS:
                raise BadRequestError(f"`{name}` is not a fault; known are {', '.join(CHECKS)}", name)
            accepts, wanted = CHECKS[name]
            if not accepts(value):
                raise BadRequestError(f"`{name}` must be {wanted}", name)
        if change.get("die"):
            self._die()
            return
        self._state.update({name: value for name, value in change.items() if name != "die"})
        self._enforce()

    def _enforce(self) -> None:
        hang, slow = self._state["hang"], cast("float", self._state["slow"])
        self._service.set_rate(0.0 if hang else self._speed / slow)
        self._service.stall(cast("str | None", self._state["stall_request"]))
        if hang:
            self._moving.clear()
        else:
            self._moving.set()

    def _die(self) -> None:
        for job in list(self._service.jobs()):
            self._service.end(job, ABORTED)
        self._service.log.write("exit", reason="die", code=DIED)
        self._kill(DIED)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_prefix(value: object) -> bool:
    return value is None or isinstance(value, str)


CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "hang": (_is_flag, "true or false"),
    "slow": (_is_factor, "a number above 0: how many times slower the engine runs"),
    "stall_request": (_is_prefix, "the beginning of a request id, or null"),
    "die": (_is_flag, "true or false"),
}
