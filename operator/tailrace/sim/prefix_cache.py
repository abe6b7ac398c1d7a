"""The engine's prefix cache: chained block hashes in least-recently-used order."""

from collections import OrderedDict
from collections.abc import Sequence

from tailrace.sim.tokens import BLOCK_BYTES, BLOCK_TOKENS


def block_chain(text: bytes, salt: str) -> list[int]:
    """Return one hash per whole block of `text`; each covers everything before it.

    `salt` keeps models and adapters apart. The built-in hash differs between processes, which is
    harmless here: no other process reads the values.
    """
    chain = []
    previous = hash(salt)
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        previous = hash((previous, text[start : start + BLOCK_BYTES]))
        chain.append(previous)
    return chain


class PrefixCache:
    """At most `capacity_tokens` tokens of block hashes; the tail of a chain is forgotten first."""

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def match(self, chain: Sequence[int]) -> int:
        """Return how many tokens of `chain`, from its beginning, are cached."""
        for position, block in enumerate(chain):
            if block not in self._blocks:
                return position * BLOCK_TOKENS
        return len(chain) * BLOCK_TOKENS

    def store(self, chain: Sequence[int]) -> None:
        """Remember `chain` as the most recent; its head outlives its tail."""
        blocks = self._blocks
        for block in reversed(chain):
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self._capacity:
            blocks.popitem(last=False)

    def __len__(self) -> int:
        return len(self._blocks)
