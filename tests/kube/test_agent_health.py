"""How fresh the child says its view is."""

import asyncio
import time
from contextlib import suppress
from typing import Any, Self

from tests.kube.documents import pod

from tailrace.kube import objects
from tailrace.kube.agent import Agent
from tailrace.kube.client import Listing
from tailrace.link import ChildHealth, Message
from tailrace.settings import Settings


class Parent:
    """The pipe's other end, and an API server with nothing in it."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def send(self, message: Message) -> None:
        self.heard.append(message)

    async def list_all(self, *_: Any, **__: Any) -> Listing:  # noqa: ANN401 - whatever is asked for
        return Listing((), "1")

    def fenced(self, _: object) -> Self:
        return self


async def health(child: Agent, parent: Parent) -> ChildHealth:
    with suppress(TimeoutError):
        await asyncio.wait_for(child._tell_health(), 0.05)
    said = parent.heard[-1]
    assert isinstance(said, ChildHealth)
    return said


async def test_events_and_lists_are_dated_by_the_clock_that_nobody_sets() -> None:
    parent = Parent()
    child = Agent(Settings(), parent, parent)  # type: ignore[arg-type]
    first = await health(child, parent)
    assert (first.last_event_at, first.last_list_at) == (0.0, 0.0)
    began = time.monotonic()
    await child._list()
    child._event(objects.PODS, "MODIFIED", pod())
    said = await health(child, parent)
    assert began <= said.last_list_at <= said.last_event_at <= time.monotonic()


async def test_the_zone_of_the_own_node_is_told_once_it_is_known() -> None:
    parent = Parent()
    child = Agent(Settings(node="node-1"), parent, parent)  # type: ignore[arg-type]
    assert (await health(child, parent)).zone == ""
    labels = {"topology.kubernetes.io/zone": "eu-1a"}
    node = {"kind": "Node", "metadata": {"name": "node-1", "uid": "n", "resourceVersion": "1", "labels": labels}}
    child._event(objects.NODES, "ADDED", node)
    assert (await health(child, parent)).zone == "eu-1a"
