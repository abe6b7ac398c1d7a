"""Address blocks of embedded clusters: several run on one machine, and two pods cannot listen on one address."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

import yaml
from tests.cluster.kubelet.nodes import FIRST_NETWORK, LAST_NETWORK

BLOCK = 8
"""Networks 127.n.0.0/16 that one cluster takes: one for each node, so it has at most as many nodes."""

LOCKS = Path(tempfile.gettempdir()) / f"tailrace-networks-{os.getuid()}"


class NoNetworkError(RuntimeError):
    """Every block is taken by a running cluster, or the nodes do not fit in one."""


class NetworkBlock:
    """A block that no other running cluster of this user has; the kernel frees it when its holder ends."""

    def __init__(self) -> None:
        LOCKS.mkdir(exist_ok=True)
        for first in range(FIRST_NETWORK, LAST_NETWORK - BLOCK, BLOCK):
            lock = _try_lock(LOCKS / str(first))
            if lock is not None:
                self.first = first
                self._lock = lock
                return
        raise NoNetworkError(f"no address block is free: end clusters that still run (locks in {LOCKS})")

    def nodes_file(self, nodes: Path, target: Path) -> Path:
        """Write the nodes file to `target` with a network of this block for every node that names none."""
        document = yaml.safe_load(nodes.read_text())
        for number, node in enumerate(document["nodes"]):
            if number >= BLOCK:
                raise NoNetworkError(f"{nodes}: more than {BLOCK} nodes; give each a `network` of its own")
            node.setdefault("network", self.first + number)
        target.write_text(yaml.safe_dump(document))
        return target

    def release(self) -> None:
        """Give the block back."""
        self._lock.close()


def _try_lock(path: Path) -> IO[str] | None:
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock
