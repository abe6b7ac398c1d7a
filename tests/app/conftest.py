"""What the tests of the composed replica share."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from tests.app.virtual import VirtualLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

PLAIN: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
LOOPS: Mapping[str, Mapping[str, LoopFactory]] = {
    "test_child": {**PLAIN, "uvloop": uvloop.new_event_loop},  # depends on the loop's own code: processes, pipes
    "test_control": {"virtual": VirtualLoop},
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Return the loops that a test runs on; the product uses uvloop."""
    return LOOPS.get(item.path.stem, PLAIN)
