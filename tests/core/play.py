"""A pool that random steps are played on."""

import hypothesis.strategies as st
from tests.core.world import endpoint, pool

from tailrace.core.endpoint import Endpoint, Event

SHAPES = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([24, 80, 141])), min_size=1, max_size=8)
STEPS = st.lists(st.tuples(st.sampled_from("ppppffurrd"), st.integers(0, 10**6)), min_size=10, max_size=80)
"""p: pick a short or long prompt; f: free a slot; u: an endpoint is unready; d: one drains; r: one is ready again."""
EVENTS = {"u": (Event.SEEN_UNREADY,), "d": (Event.DRAIN,), "r": (Event.UNDRAIN, Event.SEEN_READY)}


class Play:
    """A pool that steps are played on; ``picks`` tells of each pick who was able and who was chosen."""

    def __init__(self, shapes: list[tuple[int, int]], strategy: str) -> None:
        self.all = [endpoint(f"e{n}", capacity, memory, n) for n, (capacity, memory) in enumerate(shapes)]
        self.pool = pool(*self.all, strategy=strategy)
        self.active: list[Endpoint] = []

    def able(self, tokens: int) -> list[Endpoint]:
        floor = 80 if tokens > 4096 else 0
        return [e for e in self.all if e.available and e.gpu_memory_gb >= floor]

    def step(self, what: str, number: int) -> tuple[list[Endpoint], Endpoint | None] | None:
        if what == "p":
            return self._pick(5000 if number % 3 == 0 else 1)
        if what == "f" and self.active:
            self.active.pop(number % len(self.active)).free()
        for event in EVENTS.get(what, ()):
            self.all[number % len(self.all)].on(event)
        return None

    def _pick(self, tokens: int) -> tuple[list[Endpoint], Endpoint | None]:
        able = self.able(tokens)
        chosen = self.pool.pick(tokens)
        assert (chosen in able) if able else (chosen is None)
        return able, chosen

    def take(self, chosen: Endpoint | None) -> None:
        if chosen is not None:
            chosen.take()
            self.active.append(chosen)
