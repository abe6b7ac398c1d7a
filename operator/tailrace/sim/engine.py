"""A model of a batching inference engine, without I/O and without a clock of its own.

Rules, in the order in which a request meets them:

1. A sequence waits in order of arrival until a slot is free and the KV cache has room for its prompt
   and its longest answer. The head of the queue is never overtaken.
2. Prefill is serial: one prompt after the other at `prefill_tokens_per_second`. The prefix cache is read
   when a prompt's turn comes, so equal prompts that arrive together are computed once.
3. The first token follows `ttft_base` after the prefill. Hence
   TTFT = wait for slot and memory + wait for prefill + uncached tokens / prefill speed + base.
4. Decoding goes in steps: each gives one token to every sequence that was decoding when it began, and
   lasts `itl * (1 + itl_growth * (batch - 1))`. A sequence joins with the next step.

The caller passes the time in (`now`, seconds, never going back), asks for `next_event()` and calls
`advance(now)` when it is due; equal calls and an equal seed give equal answers.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from random import Random

from tailrace.sim.prefix_cache import PrefixCache
from tailrace.sim.profile import Profile
from tailrace.sim.sequence import Sequence, Stage, Token

NEVER = float("inf")


class TooLargeError(ValueError):
    """The request could not fit in the KV cache even if it were alone."""


class Counters:
    """Totals since the start, in tokens."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0


class Engine:
    """The rules above. Not safe for threads; a cancelled or ended sequence is never reported again."""

    def __init__(self, profile: Profile, seed: int = 0) -> None:
        self.profile = profile
        self.counters = Counters()
        self._random = Random(seed)  # noqa: S311 - a reproducible simulation, not a secret
        self._cache = PrefixCache(profile.prefix_cache_tokens)
        self._waiting: deque[Sequence] = deque()
        self._admitted: dict[Sequence, None] = {}
        self._reserved = 0
        self._to_prefill: deque[Sequence] = deque()
        self._prefilling: Sequence | None = None
        self._prefill_ends = NEVER
        self._first: list[tuple[float, int, Sequence]] = []
        self._first_count = 0
        self._decoding: dict[Sequence, None] = {}
        self._batch: list[Sequence] = []
        self._step_ends = NEVER

    @property
    def running(self) -> int:
        """Sequences that hold a slot."""
        return len(self._admitted)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot or for memory."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """The part of the KV cache that running sequences fill, 0 to 1."""
        return sum(sequence.held for sequence in self._admitted) / self.profile.kv_tokens

    def sequences(self) -> Iterator[Sequence]:
        """Yield every sequence that runs or waits."""
        yield from self._admitted
        yield from self._waiting

    def submit(self, sequence: Sequence, now: float) -> None:
        """Take `sequence` in; raise TooLargeError when it could never run."""
        if sequence.reserved > self.profile.kv_tokens:
            raise TooLargeError(
                f"the prompt ({sequence.prompt_tokens} tokens) and the answer ({sequence.max_tokens}) "
                f"exceed the {self.profile.kv_tokens} tokens of the KV cache; send less or raise --kv-tokens"
            )
        self._waiting.append(sequence)
        self._admit(now)

    def cancel(self, sequence: Sequence, now: float) -> None:
        """Forget `sequence` and give its place to others at once; nothing happens if it has ended."""
        if sequence.stage is Stage.ENDED:
            return
        if sequence.stage is Stage.WAITING:
            self._waiting.remove(sequence)
            sequence.stage = Stage.ENDED
        else:
            self._leave_stage(sequence)
            self._free(sequence)
        self._admit(now)

    def next_event(self) -> float:
        """Return the time of the next thing to happen, `NEVER` when nothing is under way."""
        first = self._first[0][0] if self._first else NEVER
        return min(self._prefill_ends, first, self._step_ends)

    def advance(self, now: float) -> list[Token]:
        """Let everything happen that is due by `now`; return the tokens in order."""
        tokens: list[Token] = []
        while (due := self.next_event()) <= now:
            if due == self._prefill_ends:
                self._end_prefill(due)
            elif self._first and due == self._first[0][0]:
                self._first_token(due, tokens)
            else:
                self._end_step(due, tokens)
        return tokens

    # Admission

    def _admit(self, now: float) -> None:
        while self._waiting and self._has_room(self._waiting[0]):
            sequence = self._waiting.popleft()
            self._admitted[sequence] = None
            self._reserved += sequence.reserved
            sequence.stage = Stage.PREFILL
            self._to_prefill.append(sequence)
        if self._prefilling is None:
            self._start_prefill(now)

    def _has_room(self, sequence: Sequence) -> bool:
        slots = self.profile.max_num_seqs - len(self._admitted)
        return slots > 0 and self._reserved + sequence.reserved <= self.profile.kv_tokens

    def _free(self, sequence: Sequence) -> None:
        del self._admitted[sequence]
        self._reserved -= sequence.reserved
        sequence.stage = Stage.ENDED

    # Prefill

    def _start_prefill(self, now: float) -> None:
        if not self._to_prefill:
            return
        sequence = self._to_prefill.popleft()
        sequence.cached_tokens = min(self._cache.match(sequence.chain), sequence.cacheable)
        uncached = sequence.prompt_tokens - sequence.cached_tokens
        self._prefilling = sequence
        self._prefill_ends = now + uncached / self.profile.prefill_tokens_per_second
        self.counters.prefix_queries += sequence.prompt_tokens
        self.counters.prefix_hits += sequence.cached_tokens

    def _end_prefill(self, now: float) -> None:
        sequence = self._prefilling
        self._stop_prefill()
        if sequence is not None:
            self._cache.store(sequence.chain)
            self.counters.prompt_tokens += sequence.prompt_tokens
            sequence.stage = Stage.FIRST
            self._first_count += 1
            heappush(self._first, (now + self._vary(self.profile.ttft_base), self._first_count, sequence))
        self._start_prefill(now)

    def _stop_prefill(self) -> None:
        self._prefilling = None
        self._prefill_ends = NEVER

    # Tokens

    def _first_token(self, now: float, tokens: list[Token]) -> None:
        sequence = heappop(self._first)[2]
        sequence.stage = Stage.DECODE
        self._decoding[sequence] = None
        if not sequence.stalled:
            self._give(sequence, tokens)
        if self._step_ends == NEVER:
            self._start_step(now)
        self._admit(now)

    def _start_step(self, now: float) -> None:
        self._batch = list(self._decoding)
        self._step_ends = now + self._step_time(len(self._batch)) if self._batch else NEVER

    def _step_time(self, batch: int) -> float:
        return self._vary(self.profile.itl) * (1 + self.profile.itl_growth * (batch - 1))

    def _end_step(self, now: float, tokens: list[Token]) -> None:
        for sequence in self._batch:
            if sequence.stage is Stage.DECODE and not sequence.stalled:
                self._give(sequence, tokens)
        self._start_step(now)
        self._admit(now)

    def _give(self, sequence: Sequence, tokens: list[Token]) -> None:
        if sequence.max_tokens:
            sequence.generated += 1
            self.counters.generated_tokens += 1
        last = sequence.generated == sequence.max_tokens
        if last:
            self._finish(sequence)
        tokens.append(Token(sequence, sequence.generated, last))

    def _finish(self, sequence: Sequence) -> None:
        del self._decoding[sequence]
        self._cache.store(sequence.whole_chain())
        self._free(sequence)

    def _leave_stage(self, sequence: Sequence) -> None:
        if sequence is self._prefilling:
            self._stop_prefill()
        elif sequence.stage is Stage.PREFILL:
            self._to_prefill.remove(sequence)
        elif sequence.stage is Stage.FIRST:
            self._first = sorted(entry for entry in self._first if entry[2] is not sequence)
        else:
            del self._decoding[sequence]

    def _vary(self, duration: float) -> float:
        return duration * (1 + self.profile.jitter * self._random.uniform(-1, 1))
