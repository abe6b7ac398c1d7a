"""What the child says of the cluster to its parent."""

from typing import Any

import pytest
from tests.kube.apiserver import ApiServer, RefusedError, serving

from tailrace.kube import objects
from tailrace.kube.agent import Agent
from tailrace.kube.client import Api
from tailrace.link import Member, Message
from tailrace.settings import Settings


class Parent:
    """The other end of the pipe; it never says anything."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.heard.append(message)


def agent(api: Api, me: Member | None = None) -> Agent:
    parent: Any = Parent()
    return Agent(Settings(namespace="ns", replica="one"), parent, api, me)


def without(what: str) -> ApiServer:
    """Return an API server that does not serve these objects."""
    cluster = ApiServer()

    def refuse(call: str) -> None:
        if what in call:
            raise RefusedError(404 if what == "inferenceservers" else 403)

    cluster.trouble = refuse
    return cluster


async def test_without_the_definition_it_says_so_once_and_goes_on_when_it_appears(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = without("inferenceservers")
    async with serving(cluster.answer) as api:
        one = agent(api)
        assert [await one._list(), await one._list()] == [frozenset(), frozenset()]
        missing = "inferenceservers.inference.tailrace.dev is not installed: apply the CRD"
        assert missing in one._trouble()
        assert caplog.text.count(missing) == 1
        cluster.trouble = lambda _: None
        assert len(await one._list()) == 6
        assert one._trouble() == ""


async def test_rights_that_are_older_than_the_image_cost_budgets_and_nothing_else() -> None:
    async with serving(without("poddisruptionbudgets").answer) as api:
        one = agent(api)
        assert objects.BUDGETS not in await one._list()
        assert len(await one._list()) == 5
        assert one._trouble() == ""


async def test_a_replica_that_may_not_register_says_so() -> None:
    async with serving(without("tailrace-member-one").answer) as api:
        one = agent(api, Member("one-1", "h:1"))
        assert one._calling is not None
        assert not await one._calling._well(one._calling._roll.register())
        assert one._trouble().startswith("members: 403")
