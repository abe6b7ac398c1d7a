"""Orders and scores made of what engines say of themselves; ``core.figures`` says what counts where they do not."""

from __future__ import annotations

from math import log2
from typing import NamedTuple

from tailrace.core.endpoint import Endpoint
from tailrace.core.estimates import CLASSES_PER_DOUBLING
from tailrace.core.figures import IDLE, Figures, Load, free_slots, is_unknown, load, sent_since
from tailrace.core.model import Request
from tailrace.core.policy import Score
from tailrace.core.ties import TiedOrder, Ties

STEPS_PER_POINT = 1 << 10
POINTS_PER_WAITING = 10.0
KV_FULL_SECONDS = 4.0
"""How much later a first token is expected where the KV cache is full: an engine then pauses requests for others."""


class Weights(NamedTuple):
    """What each part of DynamicScore counts, in percent."""

    gpu: int = 30
    memory: int = 30
    queue: int = 20
    latency: int = 20


class ByFreeSlots(TiedOrder):
    """The most free slots, as far as known."""

    def key(self, endpoint: Endpoint) -> int:
        """Return minus the slots."""
        return -int(free_slots(endpoint))


def score_free_slots(figures: Figures, ties: Ties, _: Request, __: float) -> Score:
    """Compare free slots; who is silent has no more of them than the usual share."""
    mean = figures.mean

    def free(endpoint: Endpoint) -> int:
        found = free_slots(endpoint)
        if mean is not None and is_unknown(endpoint):
            found = min(found, endpoint.capacity * (1.0 - mean.slots) - sent_since(endpoint))
        return ties.order(-int(found), endpoint)

    return free


def points(endpoint: Endpoint, weights: Weights, slowness: float, usual: Load = IDLE) -> float:
    """Return the DynamicScore in points; each part is 100 for an engine that is busy, full or as slow as is usual.

    ``usual`` is the mean load, for an endpoint whose own is unknown.
    """
    seen = load(endpoint)
    shares = weights.gpu * max(seen.gpu, usual.gpu) + weights.memory * max(seen.memory, usual.memory)
    queue = weights.queue * POINTS_PER_WAITING * (seen.queue + usual.queue) / 100.0
    return shares + queue + weights.latency * slowness


def score_class(endpoint: Endpoint) -> int:
    """Return the class of endpoints that one order fits: those that told, or did not, and are about as fast."""
    return 2 * round(CLASSES_PER_DOUBLING * log2(endpoint.meter.slowness.value)) + is_unknown(endpoint)


class ByPoints(TiedOrder):
    """The fewest points, speed aside: the order within a class."""

    def __init__(self, ties: Ties, weights: Weights) -> None:
        super().__init__(ties)
        self._weights = weights

    def key(self, endpoint: Endpoint) -> int:
        """Return the points in steps."""
        return int(STEPS_PER_POINT * points(endpoint, self._weights, 1.0))


def score_points(figures: Figures, ties: Ties, weights: Weights, _: Request, now: float) -> Score:
    """Compare points; who is silent counts as loaded as is usual, at least."""
    mean = figures.mean or IDLE

    def score(endpoint: Endpoint) -> int:
        usual = mean if is_unknown(endpoint) else IDLE
        found = points(endpoint, weights, endpoint.meter.slowness_at(now), usual)
        return ties.order(int(STEPS_PER_POINT * found), endpoint)

    return score


def kv_seconds(endpoint: Endpoint, most: float) -> float:
    """Return how much later a first token is expected because the KV cache is fuller than ``most`` (0..1)."""
    usage = None if endpoint.reading is None else endpoint.reading.kv_usage
    if usage is None or usage <= most:
        return 0.0
    return KV_FULL_SECONDS * (usage - most) / (1.0 - most)
