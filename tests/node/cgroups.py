"""The control group that holds the containers: made before the node starts, removed when all in it have ended."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
NAME = "tailrace-node"
REMOVE_SECONDS = 10.0


def make() -> None:
    """Make our group in the one hierarchy of version 2, or in each of version 1."""
    for hierarchy in _hierarchies():
        (hierarchy / NAME).mkdir(exist_ok=True)


def remove() -> None:
    """Remove our groups, innermost first; a group empties a moment after the kill of its last process."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while left := [group for hierarchy in _hierarchies() for group in _innermost_first(hierarchy / NAME)]:
        for group in left:
            with suppress(OSError):
                group.rmdir()
        if time.monotonic() > deadline:
            raise OSError(f"control groups are still in use: {left[:3]}")
        time.sleep(0.05)


def _hierarchies() -> list[Path]:
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [entry for entry in MOUNT.iterdir() if entry.is_dir() and not entry.is_symlink() and _writable(entry)]


def _writable(hierarchy: Path) -> bool:
    return (hierarchy / "cgroup.procs").exists()


def _innermost_first(group: Path) -> Iterator[Path]:
    for folder, _, _ in os.walk(group, topdown=False):
        yield Path(folder)
