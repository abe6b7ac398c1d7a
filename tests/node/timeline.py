"""The steps of one drain as they were seen, from the delete to the end of the pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.cluster.load import Load
from tests.node.witness import Going, PodLog, Witness

from tailrace.api import names

POLL_SECONDS = 0.05


GATE_STEPS = {"drain-started": "gate asked", "drain-ended": "gate answers"}
ENGINE_STEPS = {"sigterm": "SIGTERM at the engine", "exit": "engine exits"}


def gate_step(line: str) -> str:
    """Return which step a line of the gate tells; empty for others."""
    return next((step for word, step in GATE_STEPS.items() if f" {word}" in line), "")


def engine_step(line: str) -> str:
    """Return which step a line of the simulated engine tells; empty for others."""
    try:
        return ENGINE_STEPS.get(str(json.loads(line)["event"]), "")
    except (ValueError, KeyError, TypeError):
        return ""


class Timeline:
    """Follows the first pod that goes; an async context manager. Reads logs in `folder` while the kubelet keeps them.

    Without a folder the steps that only logs tell are missing.
    """

    def __init__(self, folder: Path | None, witness: Witness) -> None:
        self._folder = folder
        self._witness = witness
        self._logs: list[tuple[PodLog, Callable[[str], str]]] = []
        self._seen: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for log, _step in self._logs:
            log.close()

    @property
    def pod(self) -> Going:
        """The pod that is followed."""
        return next(iter(self._witness.going.values()))

    async def _follow(self) -> None:
        while True:
            if self._folder is not None and self._witness.going and not self._logs:
                gate = PodLog(self._folder, self.pod, names.GATE_CONTAINER)
                self._logs = [(gate, gate_step), (PodLog(self._folder, self.pod, "engine"), engine_step)]
            for log, step in self._logs:
                for at, line in log.news():
                    self._seen.setdefault(step(line), at)
            await asyncio.sleep(POLL_SECONDS)

    def steps(self, load: Load) -> list[tuple[float, str]]:
        """Return the steps with their seconds since the delete was seen, earliest first."""
        ends = [one.ended_at for one in load.records.values() if one.endpoint == self.pod.address and one.ended_at]
        seen = {step: at for step, at in self._seen.items() if step}
        seen |= {"delete": self.pod.seen_at, "last byte": max(ends)}
        if self.pod.finalizer_gone_at is not None:
            seen["finalizer gone"] = self.pod.finalizer_gone_at
        begin = min(seen.values())
        return sorted((at - begin, step) for step, at in seen.items())

    def in_order(self, load: Load) -> bool:
        """Whether SIGTERM came after the gate's answer, and every step was seen that could be.

        When clients have read the last byte is theirs: a slow one reads it late. What they lost they say themselves.
        """
        at = {step: seconds for seconds, step in self.steps(load)}
        wanted = ("gate asked", "gate answers", "SIGTERM at the engine") if self._folder else ()
        if not at.keys() >= {*wanted, "finalizer gone"}:
            return False
        times = [at[step] for step in wanted]
        return times == sorted(times)

    def text(self, load: Load) -> str:
        """Return the steps, a line each."""
        lines = [f"{seconds:6.2f} s  {step}" for seconds, step in self.steps(load)]
        return "\n".join([f"{self.pod.streaming} streams ran at the delete of {self.pod.name}", *lines])
