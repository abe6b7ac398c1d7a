"""What a strategy is made of: where candidates come from, how they compare, what is remembered of requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tailrace.core.endpoint import Endpoint
from tailrace.core.figures import Figures
from tailrace.core.meter import Notes
from tailrace.core.model import Needs, PoolSettings, Request
from tailrace.core.sources.base import Source

Score = Callable[[Endpoint], int]
"""The lowest wins; the endpoint's rank in the low bits makes every score unique."""

Holding = Callable[[Endpoint, float], bool]
"""(endpoint, now) -> whether a request that may wait should rather wait than go there."""

Homing = Callable[[Request, float], Endpoint | None]
"""(request, now) -> the one endpoint that it may go to, None when it may go to several."""

Scoring = Callable[[Request, float], Score]
"""(request, now) -> how its candidates compare."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A source, and how many of its candidates are compared."""

    source: Source
    take: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """One pool's strategy at work.

    ``draws`` makes the sources, once for each set of candidates. ``score`` compares what was drawn; None: the first
    that is offered is picked, and nothing is drawn from the other sources. ``sees_request``: a source offers different
    endpoints to different requests. ``notes``: what is remembered, None for strategies that count requests only.
    ``figures``: what is made of engines' readings, None for strategies that want none. ``holds``: who has enough to do
    for now; a request that may wait does while that is so of all that were drawn. None: a free slot is good enough.
    ``home``: where a request has to go and nowhere else; None: nobody has to.
    """

    draws: Callable[[], tuple[Draw, ...]]
    score: Scoring | None = None
    sees_request: bool = False
    notes: Notes | None = None
    needs: Needs | None = None
    figures: Figures | None = None
    home: Homing | None = None
    holds: Holding | None = None


Make = Callable[[PoolSettings, Random], Policy]
