"""One container of a pod: starts its process, probes it, restarts it, and ends it as the kubelet does.

Every kill goes: preStop hook, turn (native sidecars only), SIGTERM, SIGKILL. The grace period counts from the start of
the kill, and whatever the hook left of it, the process gets at least two seconds.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster.kubelet.actions import Actions, Surroundings
from tests.cluster.kubelet.backoff import Backoff
from tests.cluster.kubelet.child import Child
from tests.cluster.kubelet.objects import Object
from tests.cluster.kubelet.probes import ProbeSettings, probe_until
from tests.cluster.kubelet.records import Record, Running, State, Terminated, Waiting
from tests.cluster.kubelet.turns import Turns

MINIMUM_GRACE = 2
"""Seconds that a process always gets between SIGTERM and SIGKILL."""
CONFIG_RETRY_SECONDS = 1.0
log = logging.getLogger("kubelet.container")


@dataclass(frozen=True)
class Launch:
    """A container's command line and what surrounds it, worked out anew for every start."""

    command: list[str]
    where: Surroundings


@dataclass(frozen=True)
class Run:
    """One run of the container: its process, and whether its end has been recorded."""

    child: Child
    where: Surroundings
    recorded: asyncio.Event


class LaunchError(Exception):
    """A container cannot be started as its spec stands; `reason` is the API's word for why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Prepare = Callable[[Object, Path], Awaitable[Launch]]
"""Works out a launch; the path is the log of this run. Raises LaunchError."""


class Container:
    """Runs one container until its restart policy says that it is done, or until it is closed and killed."""

    def __init__(
        self,
        spec: Object,
        record: Record,
        *,
        prepare: Prepare,
        actions: Actions,
        backoff: Backoff,
        logs: Path,
        policy: str,
        grace: int,
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.record = record
        self.started = asyncio.Event()
        self._prepare = prepare
        self._actions = actions
        self._backoff = backoff
        self._logs = logs
        self._policy = policy
        self._grace = grace
        self._changed = changed
        self._closing = asyncio.Event()
        self._current: Run | None = None
        self._probes: list[asyncio.Task[None]] = []
        self._health: list[asyncio.Task[None]] = []
        self._restart: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Tell whether a process runs at this moment."""
        return self._current is not None

    async def run(self) -> None:
        """Start, and start again for as long as the restart policy asks and nobody closed the container."""
        while not self._closing.is_set():
            ran_for = await self._run_once()
            if self._restart is not None:
                await asyncio.wait({self._restart})
            if self._is_done():
                return
            await self._wait_for_restart(self._backoff.next_delay(ran_for))

    def close(self) -> None:
        """Start no further run and ask no more liveness or startup probe; a running process is left to `kill`."""
        self._closing.set()
        _cancel(self._health)
        if self._restart is not None:
            self._restart.cancel()
        if not self.running and self.record.last is not None and isinstance(self.record.state, Waiting):
            self._set_state(self.record.last)

    async def kill(self, grace: int, turns: Turns | None = None) -> None:
        """End the running process: hook, turn, SIGTERM, SIGKILL; returns when the process is gone and recorded."""
        run, name = self._current, self.record.name
        if run is None:
            return
        remaining = grace - await _elapsed(partial(self._run_pre_stop, run.where), grace)
        if turns is not None:
            remaining -= await _elapsed(partial(turns.wait, name), remaining)
        await _stop(run, max(remaining, MINIMUM_GRACE))
        if turns is not None:
            turns.ended(name)

    def destroy(self) -> None:
        """Kill the process at once, without hook or grace: the pod's object is gone, or the kubelet ends."""
        self.close()
        _cancel(self._probes)
        if self._current is not None:
            self._current.child.kill()

    async def _run_once(self) -> float:
        started_at = time.time()
        log_file = self._logs / f"{self.record.restarts}.log"
        try:
            launch = await self._prepare(self.spec, log_file)
        except LaunchError as error:
            self._set_state(Waiting(error.reason, str(error)))
            await asyncio.sleep(CONFIG_RETRY_SECONDS)
            return 0.0
        if self._closing.is_set():
            return 0.0
        await self._live(launch, log_file, started_at)
        return time.time() - started_at

    async def _live(self, launch: Launch, log_file: Path, started_at: float) -> None:
        where = launch.where
        child = Child(launch.command, env=where.env, folder=where.folder, log=log_file)
        self._current = run = Run(child, where, asyncio.Event())
        self._restart = None
        self.record.container_id = f"process://{uuid.uuid4().hex}"
        self._set_state(Running(started_at))
        log.info("started %s as process %d", self._logs, child.pid)
        self._probes.append(asyncio.create_task(self._after_start(where)))
        try:
            code = await asyncio.shield(child.ended)
        finally:
            _cancel(self._probes)
            _cancel(self._health)
        log.info("process %d of %s ended with exit code %d", child.pid, self._logs, code)
        self._current = None
        self.record.started = self.record.ready = False
        self._set_state(Terminated(code, started_at, time.time(), self.record.container_id))
        run.recorded.set()

    def _restarts_after(self, end: Terminated) -> bool:
        if self._closing.is_set():
            return False
        return self.record.sidecar or self._policy == "Always" or (self._policy == "OnFailure" and end.exit_code != 0)

    def _is_done(self) -> bool:
        state = self.record.state
        return isinstance(state, Terminated) and not self._restarts_after(state)

    async def _wait_for_restart(self, delay: float) -> None:
        if isinstance(self.record.state, Terminated):
            self.record.restarts += 1
            if delay:
                self._set_state(Waiting("CrashLoopBackOff", f"back-off {delay:.1f} s restarting the container"))
        try:
            async with asyncio.timeout(delay):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _after_start(self, where: Surroundings) -> None:
        hook = self.spec.get("lifecycle", {}).get("postStart")
        if hook:
            await self._actions.hook(hook, where)
        startup = self.spec.get("startupProbe")
        if not startup:
            self._on_started(where)
            return
        self._watch(startup, where, initial=None, decide=partial(self._on_startup, where))

    def _on_startup(self, where: Surroundings, passed: bool) -> bool:
        if passed:
            self._on_started(where)
        else:
            self._restart_for(self.spec["startupProbe"], "startup")
        return True

    def _on_started(self, where: Surroundings) -> None:
        self.record.started = True
        self.started.set()
        readiness, liveness = self.spec.get("readinessProbe"), self.spec.get("livenessProbe")
        self.record.ready = not readiness
        self._changed()
        if readiness:
            self._probes.append(self._probe(readiness, where, initial=False, decide=self._on_readiness))
        if liveness:
            self._watch(liveness, where, initial=True, decide=self._on_liveness)

    def _on_readiness(self, passed: bool) -> bool:
        self.record.ready = passed
        self._changed()
        return False

    def _on_liveness(self, passed: bool) -> bool:
        if not passed:
            self._restart_for(self.spec["livenessProbe"], "liveness")
        return not passed

    def _restart_for(self, probe: Object, kind: str) -> None:
        grace = int(probe.get("terminationGracePeriodSeconds") or self._grace)
        log.info("%s probe of %s failed: killing it with a grace of %d s", kind, self._logs, grace)
        self._restart = asyncio.create_task(self.kill(grace))

    def _watch(
        self, probe: Object, where: Surroundings, *, initial: bool | None, decide: Callable[[bool], bool]
    ) -> None:
        if not self._closing.is_set():
            self._health.append(self._probe(probe, where, initial=initial, decide=decide))

    def _probe(
        self, probe: Object, where: Surroundings, *, initial: bool | None, decide: Callable[[bool], bool]
    ) -> asyncio.Task[None]:
        check = partial(self._actions.probe, probe, where)
        return asyncio.create_task(probe_until(ProbeSettings.of(probe), check, initial=initial, decide=decide))

    async def _run_pre_stop(self, where: Surroundings) -> None:
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook:
            await self._actions.hook(hook, where)

    def _set_state(self, state: State) -> None:
        if isinstance(self.record.state, Terminated) and not isinstance(state, Terminated):
            self.record.last = self.record.state
        self.record.state = state
        self._changed()


async def _elapsed(work: Callable[[], Awaitable[None]], limit: int) -> int:
    """Do `work` for at most `limit` seconds; return the whole seconds that it took, as the kubelet counts."""
    if limit <= 0:
        return 0
    start = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            await work()
    except TimeoutError:
        return limit
    return int(time.monotonic() - start)


async def _stop(run: Run, grace: int) -> None:
    run.child.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(run.child.ended), grace)
    except TimeoutError:
        run.child.kill()
    await run.recorded.wait()


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    while tasks:
        tasks.pop().cancel()
