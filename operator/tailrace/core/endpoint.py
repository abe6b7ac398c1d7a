"""The life of an endpoint.

Rules, in the order in which they win:

1. GONE is final for a pod that was deleted; one of the same name or address is another endpoint. What was only taken
   out, of a document or by a label, may return, and is STARTING then.
2. A drain by deletion is absorbing: no later or older observation brings the endpoint back.
3. A manual or provisional drain can be cancelled; the endpoint is then STARTING until it is observed ready.
4. Only READY endpoints are picked. STARTING means: exists, and is not (or no longer) ready.
5. DRAINING ends in DRAINED when nothing is in flight anywhere, or when time is up; never in READY by itself.

Rules 3, 4 and 5 are the table below; rule 1 is kept by ``core.registry``, which alone says RETURNED, and rule 2 by
``core.drain``, which alone says UNDRAIN.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from tailrace.core.meter import UNMETERED
from tailrace.core.model import EndpointState, Reading, Timeouts

if TYPE_CHECKING:
    from tailrace.core.pool import Pool
    from tailrace.core.sources.base import Source

ADDED_BITS = 40
SAME_NODE, SAME_ZONE, ELSEWHERE = range(3)
_CAPACITY_BITS = 20
MEMORY_BITS = 40
RANK_BITS = MEMORY_BITS + _CAPACITY_BITS + ADDED_BITS
"""The width of a rank: a number of more than that many bits says something that counts before the rank."""


class Event(Enum):
    """What can happen to an endpoint."""

    SEEN_READY = "seen ready"
    SEEN_UNREADY = "seen unready"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    DRAIN_OVER = "drain over"
    VANISHED = "vanished"
    RETURNED = "returned"


_S, _E = EndpointState, Event
_READY = EndpointState.READY

TRANSITIONS: dict[EndpointState, dict[Event, EndpointState]] = {
    _S.STARTING: {_E.SEEN_READY: _S.READY, _E.DRAIN: _S.DRAINING, _E.VANISHED: _S.GONE},
    _S.READY: {_E.SEEN_UNREADY: _S.STARTING, _E.DRAIN: _S.DRAINING, _E.VANISHED: _S.GONE},
    _S.DRAINING: {_E.UNDRAIN: _S.STARTING, _E.DRAIN_OVER: _S.DRAINED, _E.VANISHED: _S.GONE},
    _S.DRAINED: {_E.UNDRAIN: _S.STARTING, _E.VANISHED: _S.GONE},
    _S.GONE: {_E.RETURNED: _S.STARTING},
}
"""Every change of state there is. An event without an entry changes nothing."""


class Load:
    """What a pick and its end read of an endpoint.

    The fields of a base class lie side by side. Where there are many endpoints, a pick waits for memory more than for
    anything else, and finds these in one place instead of four.
    """

    __slots__ = ("capacity", "in_flight", "limit", "sources", "state", "uid")

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.in_flight = 0
        self.limit = 0
        self.capacity = 0
        self.state = EndpointState.STARTING
        self.sources: tuple[Source, ...] = ()


class Endpoint(Load):
    """One endpoint's mutable record; it never leaves the core.

    ``in_flight`` counts attempts of this replica; ``unknown`` are attempts whose end nobody saw; ``blind_since`` is
    when a life of a replica ended that may have given leases which nobody remembers.
    ``limit`` is this replica's part of ``capacity``; ``served`` maps a pool's key to the engine's name of its model.
    ``rank`` orders endpoints of equal load, smallest first: most GPU memory, largest capacity, added first.
    ``pools`` are those it is in; ``sources`` those that offer it while it is available. ``meter`` is its
    own when the strategy of one of its pools asks for more than counts. ``weight`` and ``gpu_tflops`` are as observed.
    ``reading`` is what its engine said last, None while that is unknown; ``in_flight_then`` what was in flight when
    it was heard, or became unknown. ``distance`` is how far it is from this replica: 0 on its node, 1 in its zone, 2
    elsewhere or nobody knows where. ``ended`` requests came to their end here, and ``took`` so many seconds in all.
    ``backup``: it is picked only while no other is available. ``unreached``: so many connections in a row could not be
    made; for people to see, no pick depends on it.
    """

    __slots__ = (
        "adapters",
        "added",
        "address",
        "backup",
        "blind_since",
        "distance",
        "ended",
        "gpu_memory_gb",
        "gpu_tflops",
        "idle_read_at",
        "idle_reads",
        "in_flight_then",
        "meter",
        "pools",
        "rank",
        "reading",
        "served",
        "timeouts",
        "took",
        "unknown",
        "unreached",
        "was_ready",
        "weight",
    )

    def __init__(self, uid: str, *, address: str, capacity: int, gpu_memory_gb: int, added: int) -> None:
        super().__init__(uid)
        self.address = address
        self.added = added
        self.unknown: set[str] = set()
        self.blind_since: float | None = None
        self.idle_reads = 0
        self.idle_read_at = 0.0
        self.was_ready = False
        self.pools: list[Pool] = []
        self.adapters: frozenset[str] = frozenset()
        self.served: dict[str, str] = {}
        self.timeouts = Timeouts()
        self.meter = UNMETERED
        self.weight = 1
        self.gpu_tflops = 0
        self.reading: Reading | None = None
        self.in_flight_then = 0
        self.distance = ELSEWHERE
        self.backup = False
        self.ended = 0
        self.took = 0.0
        self.unreached = 0
        self.resize(capacity, gpu_memory_gb)

    def resize(self, capacity: int, gpu_memory_gb: int, members: int = 1) -> None:
        """Set capacity and memory. With several members each uses its part of the capacity, rounded up."""
        self.capacity = capacity
        self.limit = -(-capacity // members)
        self.gpu_memory_gb = gpu_memory_gb
        memory_rank = _less_is_more(gpu_memory_gb, MEMORY_BITS)
        capacity_rank = _less_is_more(capacity, _CAPACITY_BITS)
        self.rank = (((memory_rank << _CAPACITY_BITS) | capacity_rank) << ADDED_BITS) | self.added

    def on(self, event: Event) -> bool:
        """Let the event happen; return whether it changed the state."""
        state = TRANSITIONS[self.state].get(event)
        if state is None:
            return False
        self.state = state
        self.was_ready = self.was_ready or state is EndpointState.READY
        for pool in self.pools:
            pool.moved(self)
        self.refresh()
        return True

    @property
    def available(self) -> bool:
        """Whether it may be picked now: ready, with a free slot."""
        return self.state is _READY and self.in_flight < self.limit

    def take(self) -> None:
        """Occupy a slot."""
        self.in_flight += 1
        if self.in_flight >= self.limit:
            self.refresh()

    def free(self) -> None:
        """Free a slot."""
        self.in_flight -= 1
        # The hot path: ``refresh`` without the half that cannot apply.
        if self.in_flight < self.limit and self.state is _READY:
            for source in self.sources:
                source.update(self)

    def refresh(self) -> None:
        """Tell every source that something the pick depends on has changed."""
        available = self.available
        for source in self.sources:
            if available:
                source.update(self)
            else:
                source.remove(self)

    def hear(self, reading: Reading | None) -> None:
        """Take in what the engine says of itself; None: that is not known any more."""
        self.reading = reading
        self.in_flight_then = self.in_flight
        for pool in self.pools:
            pool.heard(self)
        self.refresh()

    @property
    def blind_until(self) -> float:
        """When the last lease that nobody remembers has ended; leases live as long as a request may."""
        return 0.0 if self.blind_since is None else self.blind_since + self.timeouts.total

    def unseen(self, now: float) -> int:
        """Return how many may be in flight here without this replica seeing them; at least so many."""
        return len(self.unknown) + (now < self.blind_until)

    def blind(self, now: float) -> bool:
        """Whether somebody may be in flight here without this replica knowing."""
        return self.unseen(now) > 0

    def trust(self) -> None:
        """Forget what was unknown: the engine itself has been seen idle."""
        self.unknown.clear()
        self.blind_since = None


def _less_is_more(value: int, bits: int) -> int:
    """Return a number of so many bits that falls as the value grows; values beyond them count as equal."""
    most = (1 << bits) - 1
    return most - min(max(value, 0), most)
