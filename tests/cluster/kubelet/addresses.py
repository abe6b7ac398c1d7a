"""Addresses of pods: 127.<network of the node>.x.y, all of them usable on Linux without any set-up."""

import json
from pathlib import Path

FIRST = 2  # 127.n.0.1 is the node itself
PER_BLOCK = 254
LAST = 255 * PER_BLOCK


class OutOfAddressesError(Exception):
    """A node has handed out every address of its network."""


def nth_address(network: int, number: int) -> str:
    """Return the address with this number in a node's network, from 1; `.0` and `.255` are skipped."""
    block, host = divmod(number - 1, PER_BLOCK)
    return f"127.{network}.{block}.{host + 1}"


class Addresses:
    """Hands out addresses, each once: also after a restart, since the next numbers are kept in a file.

    With `reuse` the lowest free address is given instead, as on clusters where addresses come back quickly.
    """

    def __init__(self, state: Path, *, reuse: bool = False) -> None:
        self._state = state
        self._reuse = reuse
        self._next: dict[str, int] = json.loads(state.read_text()) if state.exists() else {}
        self._used: set[tuple[int, int]] = set()
        self._numbers: dict[str, tuple[int, int]] = {}

    def take(self, network: int) -> str:
        """Return an address of the network that no living pod has."""
        number = self._lowest_free(network) if self._reuse else self._next.get(str(network), FIRST)
        if number > LAST:
            raise OutOfAddressesError(f"network 127.{network} is used up: restart the cluster or allow reuse")
        self._remember(network, number)
        address = nth_address(network, number)
        self._used.add((network, number))
        self._numbers[address] = (network, number)
        return address

    def release(self, address: str) -> None:
        """Give an address back; without `reuse` it is never handed out again anyway."""
        self._used.discard(self._numbers.pop(address, (0, 0)))

    def _lowest_free(self, network: int) -> int:
        number = FIRST
        while (network, number) in self._used:
            number += 1
        return number

    def _remember(self, network: int, number: int) -> None:
        if not self._reuse:
            self._next[str(network)] = number + 1
            self._state.write_text(json.dumps(self._next))
