"""Which endpoint has computed which beginnings of prompts lately: an index of chains of block hashes.

A chain holds one hash for each whole block of a prompt, and each covers everything before it. So whoever has a block
has all before it, and the deepest block that somebody has is found by bisection.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import islice

from tailrace.core.endpoint import Endpoint

MOST_BLOCKS = 250_000
"""Blocks noted in all, by all pools; about 150 bytes each. 128 tokens a block make it 32 million tokens of prompts."""
MOST_HOLDERS = 4
"""How many holders of one block are told: the latest. A block that everybody has is no reason to choose anybody."""
_SHRINK, _GROW = 0.9, 1.005
"""By what the room for an endpoint changes when it had less than was noted, or all: one in twenty may be wrong."""
_LEAST_ROOM = 64.0
_AT_ONCE = 8
"""The part (one in so many) of an endpoint's blocks that goes when there are too many: often would cost more."""


class PrefixIndex:
    """Blocks by endpoint, the least recently used going first, and from a chain's tail; and endpoints by block.

    ``most`` bounds all blocks together, and may be changed; each endpoint has an equal part, and gives back what is too
    much when something is noted of it. Costs O(log blocks) a question and O(blocks) a note, of the one chain in hand.
    """

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        self.most = most
        self._rooms: dict[Endpoint, float] = {}
        self._blocks: dict[Endpoint, dict[int, None]] = {}
        # One holder stands for itself: most blocks have one, and a tuple takes as much memory as the rest of an entry.
        self._holders: dict[int, Endpoint | tuple[Endpoint, ...]] = {}

    def __len__(self) -> int:
        return sum(len(blocks) for blocks in self._blocks.values())

    def match(self, endpoint: Endpoint, chain: Sequence[int]) -> int:
        """Return how many blocks of the chain, from its beginning, the endpoint has."""
        blocks = self._blocks.get(endpoint)
        return 0 if blocks is None else _depth(chain, blocks)

    def holders(self, chain: Sequence[int]) -> tuple[Endpoint, ...]:
        """Return those that have the most blocks of the chain, the latest last; none when nobody has the first."""
        depth = _depth(chain, self._holders)
        return _several(self._holders[chain[depth - 1]]) if depth else ()

    def note(self, endpoint: Endpoint, chain: Sequence[int]) -> None:
        """Note that the endpoint has, or will have in a moment, all blocks of the chain."""
        blocks = self._blocks.setdefault(endpoint, {})
        depth = _depth(chain, blocks)
        self._add(endpoint, blocks, chain[depth:])
        for block in reversed(chain[:depth]):
            blocks.pop(block, None)
            blocks[block] = None
        room = int(self._room(endpoint))
        if len(blocks) > room:
            self._drop(endpoint, blocks, len(blocks) - room + room // _AT_ONCE)

    def confirm(self, endpoint: Endpoint, *, believed: int, real: int) -> None:
        """Learn how much the endpoint itself remembers: it had ``real`` blocks of a chain, and should have had more.

        An engine that has forgotten a block has forgotten all that it used before, so fewer are noted of it. Nothing is
        learnt of one of which nothing is noted: it may be gone, and would be remembered for good.
        """
        if endpoint not in self._blocks:
            return
        # As many as there may have been before the oldest part went.
        noted = len(self._blocks[endpoint]) * _AT_ONCE / (_AT_ONCE - 1)
        if real < believed:
            self._rooms[endpoint] = max(_LEAST_ROOM, _SHRINK * min(self._room(endpoint), noted))
        elif believed:
            self._rooms[endpoint] = _GROW * self._room(endpoint)

    def _room(self, endpoint: Endpoint) -> float:
        """Return how many blocks are noted of the endpoint at most."""
        fair = self.most / max(1, len(self._blocks))
        return min(fair, self._rooms.get(endpoint, fair))

    def forget(self, endpoint: Endpoint) -> None:
        """Forget all blocks of the endpoint."""
        self._rooms.pop(endpoint, None)
        blocks = self._blocks.pop(endpoint, None)
        if blocks is not None:
            self._drop(endpoint, blocks, len(blocks))

    def _add(self, endpoint: Endpoint, blocks: dict[int, None], chain: Sequence[int]) -> None:
        holders = self._holders
        for block in reversed(chain):
            held = holders.get(block, endpoint)
            holders[block] = endpoint if held is endpoint else (*_several(held)[1 - MOST_HOLDERS :], endpoint)
            blocks[block] = None

    def _drop(self, endpoint: Endpoint, blocks: dict[int, None], count: int) -> None:
        holders = self._holders
        for block in list(islice(blocks, count)):
            del blocks[block]
            held = holders.get(block, ())
            if held is endpoint or held == (endpoint,):
                del holders[block]
            elif isinstance(held, tuple) and endpoint in held:
                holders[block] = tuple(each for each in held if each is not endpoint)


def _several(held: Endpoint | tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    return held if isinstance(held, tuple) else (held,)


def _depth(chain: Sequence[int], known: Container[int]) -> int:
    """Return how many blocks of the chain, from its beginning, are known; if one is, so are those before it."""
    low, high = 0, len(chain)
    while low < high:
        middle = (low + high) // 2
        if chain[middle] in known:
            low = middle + 1
        else:
            high = middle
    return low
