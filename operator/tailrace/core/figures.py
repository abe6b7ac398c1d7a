"""How loaded an endpoint is, by what its engine says of itself and by what was sent since it said so.

Rules. A reading is a second old or more, and a burst of picks lands between two of them: so each request that was sent
since counts as one more, each that came back as one less. What an engine did not tell, or told too long ago, is
unknown and never zero: it counts as what this replica sees for itself, and at least as the mean of those that told.
"""

from __future__ import annotations

from typing import NamedTuple

from tailrace.core.endpoint import Endpoint
from tailrace.core.model import Reading

GIGABYTE = 1_000_000_000


class Load(NamedTuple):
    """How loaded an engine is: shares of slots, GPUs and GPU memory in use (0..1), and requests that wait."""

    slots: float
    gpu: float
    memory: float
    queue: float


IDLE = Load(0.0, 0.0, 0.0, 0.0)


def is_unknown(endpoint: Endpoint) -> bool:
    """Whether nothing fresh is known of the load of the endpoint's engine."""
    return endpoint.reading is None or endpoint.reading.running is None


def sent_since(endpoint: Endpoint) -> int:
    """Return how many more requests are in flight from here than when the engine was heard, or fell silent."""
    return endpoint.in_flight - endpoint.in_flight_then


def slots(endpoint: Endpoint) -> int:
    """Return how many requests the engine runs at once: as it says, else as its server does."""
    told = None if endpoint.reading is None else endpoint.reading.slots
    return told or endpoint.capacity


def busy(endpoint: Endpoint) -> float:
    """Return how many requests are at the engine, from all replicas where it tells; at least those from here."""
    reading = endpoint.reading
    if reading is None or reading.running is None:
        return endpoint.in_flight
    return max(reading.running + (reading.waiting or 0.0) + sent_since(endpoint), endpoint.in_flight)


def free_slots(endpoint: Endpoint) -> float:
    """Return how many slots are free; below 0, how many requests wait for one."""
    return slots(endpoint) - busy(endpoint)


def load(endpoint: Endpoint) -> Load:
    """Return the load of an endpoint as its engine tells; what it does not tell counts as the share of busy slots."""
    share = busy(endpoint) / slots(endpoint)
    at_most_all = min(1.0, share)
    reading = endpoint.reading
    waiting = max(0, sent_since(endpoint))
    if reading is None:
        return Load(share, at_most_all, at_most_all, waiting)
    gpu = at_most_all if reading.gpu_usage is None else reading.gpu_usage
    memory = _memory(endpoint, reading)
    return Load(share, gpu, at_most_all if memory is None else memory, waiting + (reading.waiting or 0.0))


def _memory(endpoint: Endpoint, reading: Reading) -> float | None:
    """Return the share of GPU memory in use, else that of the KV cache, which is the part of it that changes."""
    if reading.gpu_memory is None and reading.gpu_bytes is not None and endpoint.gpu_memory_gb:
        return min(1.0, reading.gpu_bytes / (endpoint.gpu_memory_gb * GIGABYTE))
    return reading.kv_usage if reading.gpu_memory is None else reading.gpu_memory


class Figures:
    """The mean load of a pool's engines that tell; it stands for those that do not. O(1) for each reading."""

    def __init__(self) -> None:
        self._each: dict[int, Load] = {}
        self._sums = IDLE

    def heard(self, endpoint: Endpoint) -> None:
        """Take in what is known of an endpoint now."""
        self.forget(endpoint)
        if not is_unknown(endpoint):
            now = self._each[endpoint.added] = load(endpoint)
            self._sums = Load(*(a + b for a, b in zip(self._sums, now, strict=True)))

    def forget(self, endpoint: Endpoint) -> None:
        """Leave an endpoint out."""
        before = self._each.pop(endpoint.added, None)
        if before is not None:
            # Sums of floats do not cancel out exactly: of nothing, nothing is left.
            left = (a - b for a, b in zip(self._sums, before, strict=True))
            self._sums = Load(*left) if self._each else IDLE

    @property
    def mean(self) -> Load | None:
        """The mean load when each engine was last heard, None while none is known."""
        return Load(*(part / len(self._each) for part in self._sums)) if self._each else None
