"""The life of an endpoint.

Rules, in the order in which they win:

1. GONE is final. A uid that is gone never comes back; a pod of the same name or address is another endpoint.
2. A drain by deletion is absorbing: no later or older observation brings the endpoint back.
3. A manual or provisional drain can be cancelled; the endpoint is then STARTING until it is observed ready.
4. Only READY endpoints are picked. STARTING means: exists, and is not (or no longer) ready.
5. DRAINING ends in DRAINED when nothing is in flight anywhere, or when time is up; never in READY by itself.

Rules 1, 3, 4 and 5 are the table below; rule 2 is kept by ``core.drain``, which alone says UNDRAIN.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from tailrace.core.model import EndpointState, Timeouts

if TYPE_CHECKING:
    from tailrace.core.pool import Pool

Rank = tuple[int, int, int]
"""Order among endpoints of equal load, smallest first: most GPU memory, largest capacity, added first."""


class Event(Enum):
    """What can happen to an endpoint."""

    SEEN_READY = "seen ready"
    SEEN_UNREADY = "seen unready"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    DRAIN_OVER = "drain over"
    VANISHED = "vanished"


_S, _E = EndpointState, Event

TRANSITIONS: dict[EndpointState, dict[Event, EndpointState]] = {
    _S.STARTING: {_E.SEEN_READY: _S.READY, _E.DRAIN: _S.DRAINING, _E.VANISHED: _S.GONE},
    _S.READY: {_E.SEEN_UNREADY: _S.STARTING, _E.DRAIN: _S.DRAINING, _E.VANISHED: _S.GONE},
    _S.DRAINING: {_E.UNDRAIN: _S.STARTING, _E.DRAIN_OVER: _S.DRAINED, _E.VANISHED: _S.GONE},
    _S.DRAINED: {_E.UNDRAIN: _S.STARTING, _E.VANISHED: _S.GONE},
    _S.GONE: {},
}
"""Every change of state there is. An event without an entry changes nothing."""


class Endpoint:
    """One endpoint's mutable record; it never leaves the core.

    ``in_flight`` counts attempts of this replica; ``unknown`` counts attempts whose end nobody saw; until
    ``blind_until`` an earlier life of this replica may have given leases that it no longer remembers.
    ``limit`` is this replica's part of ``capacity``; ``served`` maps a pool's key to the engine's name of its model.
    """

    __slots__ = (
        "adapters",
        "address",
        "blind_until",
        "capacity",
        "gpu_memory_gb",
        "idle_read_at",
        "idle_reads",
        "in_flight",
        "limit",
        "pools",
        "rank",
        "served",
        "state",
        "timeouts",
        "uid",
        "unknown",
        "was_ready",
    )

    def __init__(self, uid: str, *, address: str, capacity: int, gpu_memory_gb: int, added: int) -> None:
        self.uid = uid
        self.address = address
        self.in_flight = 0
        self.unknown = 0
        self.blind_until = 0.0
        self.idle_reads = 0
        self.idle_read_at = 0.0
        self.state = EndpointState.STARTING
        self.was_ready = False
        self.pools: list[Pool] = []
        self.adapters: frozenset[str] = frozenset()
        self.served: dict[str, str] = {}
        self.timeouts = Timeouts()
        self.resize(capacity, gpu_memory_gb, added)

    def resize(self, capacity: int, gpu_memory_gb: int, added: int, members: int = 1) -> None:
        """Set capacity and memory. With several members each uses its part of the capacity, rounded up."""
        self.capacity = capacity
        self.limit = -(-capacity // members)
        self.gpu_memory_gb = gpu_memory_gb
        self.rank: Rank = (-gpu_memory_gb, -capacity, added)

    def on(self, event: Event) -> bool:
        """Let the event happen; return whether it changed the state."""
        state = TRANSITIONS[self.state].get(event)
        if state is None:
            return False
        self.state = state
        self.was_ready = self.was_ready or state is EndpointState.READY
        self.refresh()
        return True

    @property
    def available(self) -> bool:
        """Whether it may be picked now: ready, with a free slot."""
        return self.state is EndpointState.READY and self.in_flight < self.limit

    def take(self) -> None:
        """Occupy a slot."""
        self.in_flight += 1
        self.refresh()

    def free(self) -> None:
        """Free a slot."""
        self.in_flight -= 1
        self.refresh()

    def refresh(self) -> None:
        """Tell every pool that something the pick depends on has changed."""
        for pool in self.pools:
            pool.refresh(self)

    def blind(self, now: float) -> bool:
        """Whether somebody may be in flight here without this replica knowing."""
        return self.unknown > 0 or now < self.blind_until

    def trust(self) -> None:
        """Forget what was unknown: the engine itself has been seen idle."""
        self.unknown = 0
        self.blind_until = 0.0
