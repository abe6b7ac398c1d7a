"""What the tests of the composed replica share."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run what depends on the event loop's own code (processes, pipes) on both loops: the product uses uvloop."""
    plain: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    return {**plain, "uvloop": uvloop.new_event_loop} if item.path.stem == "test_child" else plain
