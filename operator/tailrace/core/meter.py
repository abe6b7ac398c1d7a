"""What requests ask of an endpoint, in tokens and seconds, for strategies that want more than a count of them.

Only endpoints of a pool whose strategy asks for it have a meter; nobody else pays. The figures belong to the endpoint,
whichever pool a request came through; what is learnt of a model's requests belongs to the pool's ``Notes``.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

from tailrace.core.learn import Mean, Quantile, Ratio, Speed
from tailrace.core.model import Outcome, Request, Usage

if TYPE_CHECKING:
    from tailrace.core.endpoint import Endpoint

SMOOTHING = 0.1
ALONE_SMOOTHING = 0.3
KEEP = 0.95
"""A ratio remembers about twenty requests."""
PRIOR_TOKENS = 2_000.0
"""How much the first guess of a ratio weighs: about as much as one usual request."""
FADING_SECONDS = 10.0
"""In which half of what is believed of an endpoint's speed is forgotten while nothing new is seen of it."""
LEAST_SLOWNESS = 1e-6
"""Times are divided by it, and a float near -1 plus 1 may be nothing."""
OUTPUT_SHARE = 0.9
OUTPUT_TOKENS = 256
"""What an answer of unknown length counts until one has been seen."""


class Meter:
    """One endpoint's figures. ``tokens`` are outstanding, prompts and answers; ``seconds`` is outstanding work.

    ``mean`` and ``p95`` are the seconds that whole requests took; ``slowness`` is how long they took against what the
    pool expects of such requests, as last seen: 2 is half as fast. ``pending`` are prompt tokens whose first byte has
    not come; ``prefill`` is their speed, and ``began_at`` when the last first byte came. ``alone`` is the mean time to
    the first byte of prompts that found none pending.
    """

    __slots__ = (
        "_prompts",
        "_seen_at",
        "_turned_at",
        "alone",
        "began_at",
        "mean",
        "p95",
        "pending",
        "prefill",
        "seconds",
        "slowness",
        "tokens",
    )

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self.mean = Mean(SMOOTHING)
        self.p95 = Quantile(0.95)
        self.slowness = Ratio(KEEP)
        self.pending = 0
        self.prefill = Speed()
        self.alone = Mean(ALONE_SMOOTHING)
        self.began_at = 0.0
        self._seen_at = 0.0
        self._prompts: OrderedDict[Work, int] = OrderedDict()
        self._turned_at = 0.0

    def wait(self, work: Work, tokens: int) -> None:
        """Note a prompt of so many tokens behind those that are pending."""
        self._prompts[work] = tokens
        self.pending += tokens

    def settle(self, work: Work, now: float, *, seen: bool) -> None:
        """Count a prompt that was noted as pending no more; ``seen``: its first byte told that it was read.

        From now on the engine is at the next one, unless that only waited behind another, which is read on.
        """
        if seen or work is next(iter(self._prompts)):
            self._turned_at = max(self._turned_at, now)
        self.pending -= self._prompts.pop(work)

    def is_late(self, now: float) -> bool:
        """Whether the oldest pending prompt should have been read long ago."""
        oldest = next(iter(self._prompts), None)
        return oldest is not None and now > oldest.late_at

    def left(self, speed: float, now: float) -> float:
        """Return the pending tokens without those that should have been read by now of the prompt whose turn it is."""
        if not self._prompts:
            return float(self.pending)
        work, tokens = next(iter(self._prompts.items()))
        since = max(self._turned_at, work.opened_at)
        return self.pending - min(tokens, speed * max(0.0, now - since))

    def slowness_at(self, now: float) -> float:
        """Return the slowness as believed now: what is not seen again fades, or who was slow once would stay it."""
        return max(LEAST_SLOWNESS, 1.0 + (self.slowness.value - 1.0) * self._kept(now))

    def took(self, seconds: float, expected: float, now: float) -> None:
        """Learn the slowness from a request that should have taken so long."""
        self.slowness.fade(self._kept(now), 1.0)
        self.slowness.see(seconds, expected)
        self._seen_at = now

    def _kept(self, now: float) -> float:
        return float(0.5 ** (max(0.0, now - self._seen_at) / FADING_SECONDS))


class _Unmetered(Meter):
    """The one of its kind, also after it was copied or stored."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "UNMETERED"


UNMETERED: Meter = _Unmetered()
"""The meter of every endpoint that has none: always at zero."""


class Work:
    """What one attempt asks of its endpoint, booked there until ``end``.

    ``late_at``: when its first byte is so late that what was believed of its endpoint is not true.
    """

    __slots__ = ("endpoint", "late_at", "notes", "opened_at", "output", "prompt", "request", "seconds")

    def __init__(self, endpoint: Endpoint, notes: Notes, request: Request, opened_at: float) -> None:
        self.endpoint = endpoint
        self.notes = notes
        self.request = request
        self.opened_at = opened_at
        self.late_at = inf
        self.prompt, self.output = notes.lengths.of(request)
        self.seconds = notes.predict(self.prompt, self.output)
        endpoint.meter.tokens += self.prompt + self.output
        endpoint.meter.seconds += self.seconds

    def began(self, now: float, *, ok: bool) -> None:
        """Take note of the first byte of the answer; ``ok``: it is no error."""

    def end(self, outcome: Outcome, usage: Usage | None, now: float) -> None:
        """Take it off the endpoint's account, and learn from it when it came to its end. Call it once."""
        meter = self.endpoint.meter
        meter.tokens -= self.prompt + self.output
        # Sums of floats do not cancel out exactly: nothing in flight is no work.
        meter.seconds = max(0.0, meter.seconds - self.seconds) if meter.tokens else 0.0
        if outcome is Outcome.COMPLETED:
            took = max(0.0, now - self.opened_at)
            meter.mean.see(took)
            meter.p95.see(took)
            self.notes.completed(self, took, now)
            if usage is not None:
                self.notes.lengths.learn(self.request, usage)


class Lengths:
    """How long prompts and answers of one model really are, learnt from what engines count."""

    __slots__ = ("_outputs", "_prompts")

    def __init__(self) -> None:
        self._prompts = Ratio(KEEP, weight=PRIOR_TOKENS)
        self._outputs = Quantile(OUTPUT_SHARE)

    def of(self, request: Request) -> tuple[int, int]:
        """Return the tokens of prompt and answer that the request should have; 0 for an answer nobody told of."""
        if request.traits is None:
            return max(1, request.tokens), 0
        prompt = round(request.traits.prompt_tokens * self._prompts.value)
        return max(1, prompt), self._output(request.traits.output_tokens)

    def _output(self, allowed: int) -> int:
        """Return how many tokens an answer should have: few have more. At most ``allowed``, unless that is 0."""
        usual = self._outputs.value
        expected = OUTPUT_TOKENS if usual is None else int(usual)
        return min(expected, allowed) if allowed else expected

    def learn(self, request: Request, usage: Usage) -> None:
        """Take in what an engine counted of the request."""
        if usage.prompt_tokens is not None and request.traits is not None:
            self._prompts.see(usage.prompt_tokens, request.traits.prompt_tokens)
        if usage.output_tokens is not None:
            self._outputs.see(usage.output_tokens)


class Notes:
    """What a pool remembers of its requests; strategies that remember more extend it."""

    def __init__(self) -> None:
        self.lengths = Lengths()

    def open(self, endpoint: Endpoint, request: Request, now: float) -> Work:
        """Book an attempt at an endpoint that has a meter."""
        return Work(endpoint, self, request, now)

    def predict(self, prompt: int, output: int) -> float:  # noqa: ARG002 - those that know, say
        """Return the seconds that a request of so many tokens takes at an endpoint of usual speed."""
        return 0.0

    def completed(self, work: Work, took: float, now: float) -> None:
        """Take note that a request has come to its end after so many seconds."""

    def share(self, pools: int) -> None:
        """Take note of how many pools, this one included, share the memory that there is for all."""

    def forget(self, endpoint: Endpoint) -> None:
        """Forget what was noted of an endpoint: it is gone, or has begun anew."""
