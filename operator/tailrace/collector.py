"""The garbage collector, kept from looking where there is nothing to find: while it does, everything else waits."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def spare_what_is_here() -> None:
    """Have what exists by now, modules above all, not looked at again. Call it once, before the work begins."""
    gc.collect()
    gc.freeze()


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing during the block, for making many values of no cycles: each is else looked at again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
