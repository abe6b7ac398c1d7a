"""What the doors' requests come to: the observer that counts them, and the families it shows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from tailrace.telemetry.tally import Histogram, Labels

MAX_LABEL_VALUES = 1000

DURATIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
FIRST_BYTES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
GAPS = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)

_WHO = ("door", "model")


class _Kind:
    """The figures of the requests of one door for one model."""

    __slots__ = ("duration", "errors", "itl", "ttft")

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.duration = Histogram(DURATIONS)
        self.ttft = Histogram(FIRST_BYTES)
        self.itl = Histogram(GAPS)


class RequestTally:
    """Counts requests; see the protocol ``Observer`` of the doors for what each call means."""

    def __init__(self) -> None:
        self._models = Labels(MAX_LABEL_VALUES)
        self._codes = Labels(MAX_LABEL_VALUES)
        self._kinds: defaultdict[tuple[str, str], _Kind] = defaultdict(_Kind)
        self._running: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._waits: defaultdict[tuple[str, str], Histogram] = defaultdict(partial(Histogram, DURATIONS))

    def started(self, door: str) -> None:
        """Count a request as running."""
        self._running[door] += 1

    def ended(
        self, *, door: str, model: str, code: str, seconds: float, ttft: float | None = None, itl: float | None = None
    ) -> None:
        """Count a request as ended."""
        self._running[door] -= 1
        kind = self._kinds[door, self._models.bound(model)]
        kind.duration.observe(seconds)
        if code:
            kind.errors[self._codes.bound(code)] += 1
        if ttft is not None:
            kind.ttft.observe(ttft)
        if itl is not None:
            kind.itl.observe(itl)

    def waited(self, model: str, outcome: str, seconds: float) -> None:
        """Count a request that waited for a slot."""
        self._waits[self._models.bound(model), outcome].observe(seconds)

    def retried(self, reason: str) -> None:
        """Count a retry."""
        self._retries[reason] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the families, as prometheus_client wants them at a scrape."""
        yield _counts("tailrace_retries", "Attempts that failed and were tried again.", "reason", self._retries)
        running = GaugeMetricFamily("tailrace_request_running", "Requests under way at a door.", labels=["door"])
        for door, count in self._running.items():
            running.add_metric([door], count)
        yield running
        yield self._totals()
        yield self._errors()
        yield self._histogram("duration", "Seconds from a request's arrival to its end.")
        yield self._histogram("ttft", "Seconds from a request's arrival to the first byte of the answer's body.")
        yield self._histogram("itl", "Mean seconds between the chunks of a streamed answer.")
        yield self._queue()

    def _totals(self) -> Metric:
        family = CounterMetricFamily("tailrace_request", "Requests that have ended.", labels=_WHO)
        for who, kind in self._kinds.items():
            family.add_metric(who, kind.duration.buckets()[-1][1])
        return family

    def _errors(self) -> Metric:
        family = CounterMetricFamily(
            "tailrace_request_error", "Requests that ended in an error, by its code.", labels=(*_WHO, "code")
        )
        for who, kind in self._kinds.items():
            for code, count in kind.errors.items():
                family.add_metric((*who, code), count)
        return family

    def _queue(self) -> Metric:
        text = "Seconds that a request waited for a slot, by what came of it."
        family = HistogramMetricFamily("tailrace_queue_duration_seconds", text, labels=("model", "outcome"))
        for who, histogram in self._waits.items():
            family.add_metric(who, histogram.buckets(), histogram.total)
        return family

    def _histogram(self, name: str, text: str) -> Metric:
        family = HistogramMetricFamily(f"tailrace_request_{name}_seconds", text, labels=_WHO)
        for who, kind in self._kinds.items():
            histogram: Histogram = getattr(kind, name)
            family.add_metric(who, histogram.buckets(), histogram.total)
        return family


def _counts(name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
