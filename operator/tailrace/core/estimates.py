"""Scores and weights made of what meters and notes have learnt."""

from __future__ import annotations

from math import log2

from tailrace.core.endpoint import Endpoint
from tailrace.core.history import History
from tailrace.core.learn import Mean
from tailrace.core.meter import SMOOTHING, Notes, Work
from tailrace.core.model import Request
from tailrace.core.policy import Score
from tailrace.core.ties import TiedOrder, Ties

STEPS_PER_SECOND = 1 << 20
CLASSES_PER_DOUBLING = 2
"""Endpoints of one class differ in speed by less than the square root of two."""
SLOWEST = 50.0
"""How much slower than the mean an endpoint counts at most: it must be picked now and then, or it could not recover."""


class ResponseTimes(Notes):
    """Weights by how long requests took: capacity / latency, by the ``Mean`` or the ``P95`` of an endpoint's last ones.

    An endpoint that has answered nothing yet counts as the mean of all.
    """

    def __init__(self, latency: str) -> None:
        super().__init__()
        self._p95 = latency == "P95"
        self._of_all = Mean(SMOOTHING)

    def completed(self, work: Work, took: float, now: float) -> None:  # noqa: ARG002 - no clock is needed here
        """Learn from a request that has come to its end."""
        usual = self._of_all.value or took
        self._of_all.see(min(self._latency(work.endpoint) or took, SLOWEST * usual))

    def weigh(self, endpoint: Endpoint) -> int:
        """Return the endpoint's weight, at least 1."""
        usual = self._of_all.value or 1.0
        latency = min(self._latency(endpoint) or usual, SLOWEST * usual)
        return max(1, int(endpoint.capacity * STEPS_PER_SECOND / max(latency, 0.001)))

    def _latency(self, endpoint: Endpoint) -> float | None:
        return endpoint.meter.p95.value if self._p95 else endpoint.meter.mean.value


def rate_class(endpoint: Endpoint) -> int:
    """Return the class of the rate at which work is done there: one for all within the square root of two."""
    return round(CLASSES_PER_DOUBLING * log2(endpoint.meter.slowness.value / endpoint.capacity))


class ByWork(TiedOrder):
    """The least work, in seconds at usual speed."""

    def key(self, endpoint: Endpoint) -> int:
        """Return the work in steps."""
        return int(STEPS_PER_SECOND * endpoint.meter.seconds)


def score_finish(history: History, ties: Ties, request: Request, now: float) -> Score:
    """Compare by when all that is there and this request would be done: work / capacity x the endpoint's slowness.

    The request is divided by capacity too: an endpoint's slowness is noisy, and would otherwise decide alone while
    little is in flight, for all requests at once.
    """
    needed = STEPS_PER_SECOND * history.predict(*history.lengths.of(request))

    def finish(endpoint: Endpoint) -> int:
        meter = endpoint.meter
        steps = (STEPS_PER_SECOND * meter.seconds + needed) / endpoint.capacity * meter.slowness_at(now)
        return ties.order(int(steps), endpoint)

    return finish
