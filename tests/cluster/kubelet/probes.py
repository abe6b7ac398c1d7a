"""Probes: their settings, the rule that turns single answers into a verdict, and the loop that asks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Check = Callable[[float], Awaitable[bool]]
"""Ask once; the argument is the longest time in seconds that an answer may take."""


@dataclass(frozen=True)
class ProbeSettings:
    """A probe's numbers, in seconds and counts; defaults are those of the API."""

    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> "ProbeSettings":
        """Read a probe of a container's spec."""
        return cls(
            float(probe.get("initialDelaySeconds") or 0),
            float(probe.get("periodSeconds") or 10),
            float(probe.get("timeoutSeconds") or 1),
            int(probe.get("successThreshold") or 1),
            int(probe.get("failureThreshold") or 3),
        )


class Streak:
    """Counts equal answers in a row; a verdict is given when its threshold is reached and it differs from the last."""

    def __init__(self, settings: ProbeSettings, verdict: bool | None) -> None:
        self._thresholds = {True: settings.success_threshold, False: settings.failure_threshold}
        self._verdict = verdict
        self._last: bool | None = None
        self._run = 0

    def observe(self, ok: bool) -> bool | None:
        """Take one answer; return the new verdict, or None while it stays as it was."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        if ok == self._verdict or self._run < self._thresholds[ok]:
            return None
        self._verdict = ok
        return ok


async def probe_until(
    settings: ProbeSettings, check: Check, *, initial: bool | None, decide: Callable[[bool], bool]
) -> None:
    """Ask every period; `decide(verdict)` is called on each change and ends the probing by returning True."""
    streak = Streak(settings, initial)
    await asyncio.sleep(settings.initial_delay)
    while True:
        verdict = streak.observe(await check(settings.timeout))
        if verdict is not None and decide(verdict):
            return
        await asyncio.sleep(settings.period)
