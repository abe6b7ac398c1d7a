"""Least estimated time to first token: what an endpoint still has to read before it could answer, and how fast it is.

Theory: a prompt's first token comes when the engine has computed everything before it and the prompt itself, less what
it remembers of its beginning. So cost = (pending + uncached) / prefill speed, and a little for each request that
decodes. All of it is seen from outside: a prompt is pending until its first byte comes back, and while something is
pending the engine computes, so tokens done over that time is its speed.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf, log2

from tailrace.core.endpoint import Endpoint
from tailrace.core.enginescores import kv_seconds
from tailrace.core.estimates import CLASSES_PER_DOUBLING, STEPS_PER_SECOND
from tailrace.core.learn import Speed
from tailrace.core.meter import Notes, Work
from tailrace.core.model import Outcome, Request, Usage
from tailrace.core.order import BY_LOAD_RATIO, RATIO_WIDTH
from tailrace.core.policy import Score
from tailrace.core.prefix import MOST_BLOCKS, PrefixIndex
from tailrace.core.ties import TiedOrder, Ties

TOKENS_PER_TFLOP = 20.0
"""A first guess of a speed from the hardware: 8B models reach about so many tokens a second for each dense TFLOPS."""
USUAL_TFLOPS = 400
SMALL_TOKENS = 256
"""An endpoint at rest takes longer over a prompt up to here for reasons that are not its speed."""
TOLERANCE_BLOCKS = 1
"""Engines cache whole blocks of their own size, and never the last token."""
LOAD_SECONDS = 0.5
"""What an endpoint that is full counts behind one that is idle, and less by its load ratio: what is in flight takes
memory and a part of every step. Where nothing else is known, this alone decides, and the least load ratio wins."""
UNCACHED_WEIGHT = 1.5
"""Tokens that have to be computed count more than those pending: whoever comes next waits for them too. A request
that only looks at its own wait has a prompt computed anew a little too often, and all pay for it."""
BACKLOG_SECONDS = 2.0
"""An endpoint with so much of prompts before it needs no more for now: what waits at the router goes, later, to whoever
is done first, and what waits in an engine goes nowhere else."""
TOLERANCE = 1.25
"""So many times as long as it takes over a prompt alone is no backlog either: an endpoint whose first byte is late for
another reason than the prompts before it would be given one after the other."""
LATE_TIMES = 2.0
"""A first byte that takes so many times as long as it should shows that what is believed of the endpoint is not so."""
LIKE = 1.2
"""Within this factor of what the endpoint should do, what is seen of its speed is taken for noise. A long prompt
multiplies it: among endpoints that are alike it would decide more than the queues do."""


class PrefillWork(Work):
    """A prompt on its way: ``uncached`` tokens are pending at its endpoint until its first byte."""

    __slots__ = ("alone", "believed", "due", "pending", "prefills", "uncached")

    def __init__(self, endpoint: Endpoint, notes: Prefills, request: Request, opened_at: float) -> None:
        super().__init__(endpoint, notes, request, opened_at)
        self.prefills = notes
        self.believed = notes.believed(endpoint, request)
        self.uncached = _uncached(self.prompt, self.believed, request)
        self.pending = True
        self.due = inf
        self.alone = not endpoint.meter.pending
        endpoint.meter.wait(self, self.uncached)
        self.late_at = opened_at + LATE_TIMES * (notes.seconds_left(endpoint, opened_at) + BACKLOG_SECONDS)

    def began(self, now: float, *, ok: bool) -> None:
        """Learn the speed from the first byte of an answer that is streamed; an error took no computing."""
        seen = ok and not _is_silent(self.request)
        if seen and self.pending:
            self._learn(now)
        self.settle(now, seen=seen)

    def _learn(self, now: float) -> None:
        meter = self.endpoint.meter
        since = max(meter.began_at, self.opened_at)
        if self.alone:
            meter.alone.see(max(now - self.opened_at, 0.0))
        if since > self.opened_at or self.uncached >= SMALL_TOKENS:
            self.prefills.learn_speed(self.endpoint, self.uncached, max(now - since, 0.0), now)
        meter.began_at = now

    def settle(self, now: float, *, seen: bool = False) -> None:
        """Count the prompt as read, since it was due if that was before; ``seen``: its first byte told."""
        if self.pending:
            self.pending = False
            self.endpoint.meter.settle(self, min(now, self.due), seen=seen)
            self.endpoint.refresh()

    def end(self, outcome: Outcome, usage: Usage | None, now: float) -> None:
        """Take it off the endpoint's account, and learn what the endpoint had forgotten."""
        self.settle(now)
        traits = self.request.traits
        if usage is not None and usage.cached_tokens is not None and traits is not None and usage.prompt_tokens:
            real = usage.cached_tokens * len(traits.chain) // usage.prompt_tokens
            self.prefills.index.confirm(self.endpoint, believed=self.believed, real=real + TOLERANCE_BLOCKS)
        super().end(outcome, usage, now)


class Prefills(Notes):
    """What LeastEstimatedTTFT remembers: who has which prefix, and which prompts should have been read by when."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self._against_hardware = Speed()
        self._made_of_hardware = 1.0
        self._silent: list[tuple[float, int, PrefillWork]] = []
        self._sequence = 0

    def open(self, endpoint: Endpoint, request: Request, now: float) -> Work:
        """Book an attempt; its endpoint will have the whole prompt."""
        work = PrefillWork(endpoint, self, request, now)
        if _is_silent(request):
            self._expect(work, now)
        if request.traits is not None:
            self.index.note(endpoint, request.traits.chain)
        return work

    def believed(self, endpoint: Endpoint, request: Request) -> int:
        """Return how many blocks of the prompt the endpoint should remember."""
        traits = request.traits
        return 0 if traits is None or not traits.chain else self.index.match(endpoint, traits.chain)

    def uncached(self, endpoint: Endpoint, request: Request, prompt: int) -> int:
        """Return how many of the ``prompt`` tokens the endpoint would have to compute, at least 1."""
        return _uncached(prompt, self.believed(endpoint, request), request)

    def speed(self, endpoint: Endpoint, now: float) -> float:
        """Return the prompt tokens that the endpoint computes in a second, as believed now."""
        usual = self._guess(endpoint)
        seen = endpoint.meter.prefill.at(now, usual)
        return usual if usual < LIKE * seen and seen < LIKE * usual else seen

    def seconds_left(self, endpoint: Endpoint, now: float) -> float:
        """Return how long the endpoint should take over the prompts that are pending there."""
        speed = self.speed(endpoint, now)
        return endpoint.meter.left(speed, now) / speed

    def speed_class(self, endpoint: Endpoint) -> int:
        """Return the class of the endpoint's speed: one for all within the square root of two."""
        return round(CLASSES_PER_DOUBLING * log2(endpoint.meter.prefill.last(self._guess(endpoint))))

    def learn_speed(self, endpoint: Endpoint, tokens: int, seconds: float, now: float) -> None:
        """Take in that so many tokens were computed in that time."""
        endpoint.meter.prefill.see(tokens, seconds, now)
        self._against_hardware.see(tokens / _by_hardware(endpoint), seconds, now)
        self._made_of_hardware = self._against_hardware.usual(1.0)

    def _guess(self, endpoint: Endpoint) -> float:
        """Return the speed that the endpoint should have: by its hardware, and by what others made of theirs."""
        return _by_hardware(endpoint) * self._made_of_hardware

    def tick(self, now: float) -> None:
        """Count prompts as read whose time has come and of which no first byte will tell."""
        while self._silent and self._silent[0][0] <= now:
            heappop(self._silent)[2].settle(now)

    def share(self, pools: int) -> None:
        """Note an equal part of the blocks that may be noted in all."""
        self.index.most = max(1, MOST_BLOCKS // pools)

    def forget(self, endpoint: Endpoint) -> None:
        """Forget which prefixes the endpoint has."""
        self.index.forget(endpoint)

    def _expect(self, work: PrefillWork, now: float) -> None:
        self._sequence += 1
        work.due = now + self.seconds_left(work.endpoint, now)
        heappush(self._silent, (work.due, self._sequence, work))


def _uncached(prompt: int, blocks: int, request: Request) -> int:
    traits = request.traits
    if not blocks or traits is None:
        return prompt
    return max(1, prompt - prompt * blocks * traits.block_tokens // max(traits.prompt_tokens, 1))


def _by_hardware(endpoint: Endpoint) -> float:
    return TOKENS_PER_TFLOP * (endpoint.gpu_tflops or USUAL_TFLOPS)


def _is_silent(request: Request) -> bool:
    """Whether no first byte will tell when the prompt was read."""
    return request.leased or request.traits is None or not request.traits.streams


class ByPending(TiedOrder):
    """The fewest tokens pending, then the least in-flight / capacity."""

    def key(self, endpoint: Endpoint) -> int:
        """Return both as one number."""
        return (endpoint.meter.pending << RATIO_WIDTH) + BY_LOAD_RATIO.key(endpoint)


def score_first_token(notes: Prefills, ties: Ties, max_kv_usage: float, request: Request, now: float) -> Score:
    """Compare by when the first token should come; later where the engine says that its KV cache is too full."""
    prompt, _ = notes.lengths.of(request)

    def first_token(endpoint: Endpoint) -> int:
        speed = notes.speed(endpoint, now)
        tokens = endpoint.meter.left(speed, now) + UNCACHED_WEIGHT * notes.uncached(endpoint, request, prompt)
        seconds = tokens / speed
        seconds += LOAD_SECONDS * endpoint.in_flight / endpoint.capacity
        seconds += kv_seconds(endpoint, max_kv_usage)
        return ties.order(int(STEPS_PER_SECOND * seconds), endpoint)

    return first_token


def has_backlog(notes: Prefills, endpoint: Endpoint, now: float) -> bool:
    """Whether the endpoint has prompts to compute for a while.

    Nobody waits for what is only guessed: neither for an endpoint whose speed was never seen, nor for one that should
    long have begun to answer the oldest prompt.
    """
    meter = endpoint.meter
    notes.tick(now)
    if not meter.pending or meter.prefill.guessed or meter.is_late(now):
        return False
    enough = max(BACKLOG_SECONDS, TOLERANCE * (meter.alone.value or 0.0))
    return notes.seconds_left(endpoint, now) > enough
