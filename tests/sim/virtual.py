"""Virtual time for the engine: requests at given moments, tokens with the moment they came."""

from collections.abc import Iterable
from dataclasses import dataclass

from tailrace.sim.engine import NEVER, Engine
from tailrace.sim.profile import Profile
from tailrace.sim.sequence import Sequence

STEADY = Profile(
    max_num_seqs=4,
    prefill_tokens_per_second=1000,
    ttft_base=0.05,
    itl=0.01,
    itl_growth=0,
    jitter=0,
    kv_tokens=10_000,
    prefix_cache_tokens=10_000,
)
"""Round figures without jitter: a token of prompt takes a millisecond."""


def sequence(name: str, prompt_tokens: int = 100, max_tokens: int = 3, *, shared: str = "") -> Sequence:
    """Return a sequence whose prompt nobody shares unless they have the text `shared` in common."""
    return Sequence(name, (shared or name).ljust(prompt_tokens * 4, ".").encode(), max_tokens)


@dataclass(frozen=True, slots=True)
class Seen:
    """A token and its moment."""

    at: float
    id: str
    generated: int
    last: bool


def drive(engine: Engine, arrivals: Iterable[tuple[float, Sequence]] = (), until: float = NEVER) -> list[Seen]:
    """Submit each sequence at its moment, let everything due by `until` happen, and return the tokens."""
    seen: list[Seen] = []
    for at, arriving in sorted(arrivals, key=lambda pair: pair[0]):
        _run(engine, at, seen)
        engine.submit(arriving, at)
    _run(engine, until, seen)
    return seen


def _run(engine: Engine, until: float, seen: list[Seen]) -> None:
    while (due := engine.next_event()) <= until and due != NEVER:
        seen += [Seen(due, token.sequence.id, token.generated, token.last) for token in engine.advance(due)]


def first_tokens(seen: Iterable[Seen]) -> dict[str, float]:
    """Return when each sequence had its first token."""
    return {token.id: token.at for token in seen if token.generated == 1}
