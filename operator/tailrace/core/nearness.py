"""The nearest endpoint that is not too full."""

from __future__ import annotations

from tailrace.core.endpoint import RANK_BITS, Endpoint
from tailrace.core.model import Request
from tailrace.core.order import BY_LOAD_RATIO, RATIO_WIDTH
from tailrace.core.policy import Score

TOO_FULL = 3
"""Comes after every distance."""


def has_room(endpoint: Endpoint, spill_percent: int) -> bool:
    """Whether less than that share is in use of what this replica may use of the endpoint."""
    return 100 * endpoint.in_flight < spill_percent * endpoint.limit


def distance_of(endpoint: Endpoint) -> int:
    """Return how far the endpoint is: its class."""
    return endpoint.distance


def step_of(endpoint: Endpoint, spill_percent: int) -> int:
    """Return the endpoint's distance while it has room, and ``TOO_FULL`` when it has none."""
    return endpoint.distance if has_room(endpoint, spill_percent) else TOO_FULL


def score_nearness(spill_percent: int, _: Request, __: float) -> Score:
    """Compare distances among endpoints with room, and load ratios beyond that and among equals."""

    def nearness(endpoint: Endpoint) -> int:
        step = step_of(endpoint, spill_percent)
        return (((step << RATIO_WIDTH) + BY_LOAD_RATIO.key(endpoint)) << RANK_BITS) | endpoint.rank

    return nearness
