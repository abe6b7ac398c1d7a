"""One drain of this pod: a conversation with each router, the engine's gauges while alone, the decision between."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tailrace.engines.reader import Engine
from tailrace.gate.decision import Ended, Hold, Limits
from tailrace.gate.log import Log, Story
from tailrace.gate.protocol import Answer, Call, Fault, next_call, pause
from tailrace.gate.routers import Routers

_RESOLVE_SECONDS = 5.0


class DrainRun:
    """Runs one hold to its end. `words` and `hold` may be read at any time, by people who look at /status."""

    def __init__(self, routers: Routers, engine: Engine, limits: Limits, log: Log, clock: Callable[[], float]) -> None:
        self.words: dict[str, Answer | Fault] = {}
        self.hold = Hold(limits, clock())
        self._routers = routers
        self._engine = engine
        self._limits = limits
        self._log = log
        self._clock = clock
        self._story = Story(log)
        self._news = asyncio.Event()
        self._listed: frozenset[str] = frozenset()
        self._talks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> Ended:
        """Hold until the decision is to let go; nothing that goes wrong meanwhile lets go."""
        self._log("drain-started", timeout_seconds=self._limits.timeout)
        helpers = [asyncio.create_task(self._watch_routers()), asyncio.create_task(self._watch_engine())]
        try:
            ended = await self._decided()
        finally:
            for task in (*helpers, *self._talks.values()):
                task.cancel()
        self._log("drain-ended", reason=ended, seconds=round(self._clock() - self.hold.started, 1))
        return ended

    async def _decided(self) -> Ended:
        while (ended := self.hold.ended(self._clock())) is None:
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, self.hold.deadline - self._clock()))
        return ended

    async def _watch_routers(self) -> None:
        """Keep one conversation per router address, and look for new addresses."""
        self._meet(self._routers.addresses)  # known since the hello: the drain must not wait for a slow name server
        while True:
            await self._careful(self._resolve)
            await asyncio.sleep(_RESOLVE_SECONDS)

    async def _resolve(self) -> None:
        self._meet(await self._routers.resolve())
        if not self._listed:
            self._log("routers-unresolved")

    def _meet(self, addresses: frozenset[str]) -> None:
        self._listed = addresses
        for address in addresses - self._talks.keys():
            self._talks[address] = asyncio.create_task(self._talk(address))

    async def _talk(self, address: str) -> None:
        """Talk to one router until it is neither reachable nor listed any more."""
        call = Call.DRAIN
        while True:
            began = self._clock()
            word = await self._ask(call, address)
            self._take(address, word)
            if isinstance(word, Fault) and address not in self._listed:
                del self._talks[address]
                return
            elapsed = self._clock() - began
            await asyncio.sleep(pause(call, word, elapsed=elapsed, spacing=self._limits.spacing))
            call = next_call(call, word)

    async def _ask(self, call: Call, address: str) -> Answer | Fault:
        try:
            return await self._routers.ask(call, address)
        except Exception as error:  # a fault of ours must not end the conversation
            return Fault(f"failed in the gate: {error!r}")

    def _take(self, address: str, word: Answer | Fault) -> None:
        self.words[address] = word
        self.hold.heard(address, word, self._clock())
        self._story.heard(address, word, self._clock())
        self._news.set()

    async def _watch_engine(self) -> None:
        """Read the engine every second while no router is in touch."""
        while True:
            await asyncio.sleep(self._limits.idle_gap)
            if self.hold.alone:
                await self._careful(self._read_engine)

    async def _read_engine(self) -> None:
        gauges = await self._engine.gauges()
        self.hold.read(gauges, self._clock())
        self._news.set()

    async def _careful(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except Exception as error:  # see run(): an error is told, and never ends the hold
            self._log("step-failed", step=step.__name__, error=repr(error))
