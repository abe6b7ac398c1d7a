"""One request inside the engine."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from tailrace.sim.prefix_cache import block_chain
from tailrace.sim.tokens import BLOCK_TOKENS, answer_text, count_tokens


class Stage(Enum):
    """Where a sequence is; `FIRST` is the time between its prefill and its first token."""

    WAITING = auto()
    PREFILL = auto()
    FIRST = auto()
    DECODE = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and how far its answer has come. Only the engine changes it, `stalled` excepted."""

    id: str
    prompt: bytes
    max_tokens: int
    """Length of the answer; 0 for a request that ends with its prefill (an embedding)."""
    salt: str = ""
    """The model or adapter: prefixes are never shared between two salts."""
    prompt_tokens: int = 0
    """Counted from `prompt` unless given."""
    cached_tokens: int = 0
    generated: int = 0
    stage: Stage = Stage.WAITING
    stalled: bool = False
    """A stuck stream: it holds its slot and its memory and yields nothing."""
    chain: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = self.prompt_tokens or count_tokens(self.prompt)
        self.chain = block_chain(self.prompt, self.salt)

    @property
    def reserved(self) -> int:
        """KV tokens that this sequence can come to need."""
        return self.prompt_tokens + self.max_tokens

    @property
    def held(self) -> int:
        """KV tokens that this sequence fills now."""
        return self.prompt_tokens + self.generated

    @property
    def cacheable(self) -> int:
        """Prompt tokens that may come from the cache: whole blocks, and never the last token."""
        return (self.prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def whole_chain(self) -> list[int]:
        """Return the block hashes of the prompt followed by the answer: what the next turn will share."""
        return block_chain(self.prompt + answer_text(self.generated).encode(), self.salt)


class Token(NamedTuple):
    """What the engine gave: `generated` tokens of the sequence are out now; `last` ends it."""

    sequence: Sequence
    generated: int
    last: bool
