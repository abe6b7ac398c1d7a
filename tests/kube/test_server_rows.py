"""What `tailrace status` reads of a cluster: its InferenceServers, or why there are none to read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.kube.apiserver import serving

from tailrace.kube.chores import Chores, MissingDefinitionError, UnreachableError
from tailrace.kube.rows import row

READY = ("Ready", "True", "EndpointsReady", "2 of 2 endpoints take requests.")
WELL = (("Progressing", "False", "Complete", ""), ("Degraded", "False", "AsExpected", ""))
PROTECTED = ("DrainProtected", "True", "Protected", "")


def standing(*conditions: tuple[str, str, str, str], generation: int = 3, seen: int = 3) -> tuple[str, str]:
    keys = ("type", "status", "reason", "message")
    told: dict[str, Any] = row(
        {
            "metadata": {"namespace": "ns", "name": "one", "generation": generation},
            "status": {
                "observedGeneration": seen,
                "conditions": [dict(zip(keys, each, strict=True)) for each in conditions],
            },
        }
    )
    return told["condition"], told["message"]


def test_a_server_that_is_well_shows_that_it_is_ready() -> None:
    assert standing(READY, *WELL, PROTECTED) == (
        "Ready=True",
        "EndpointsReady: 2 of 2 endpoints take requests.",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ("DrainProtected", "False", "GateUnreachable", "The drain gate is silent."),
        ("Degraded", "True", "NameTaken", "Another Deployment has the name."),
        ("GateOutdated", "True", "OlderImage", "The gate is old."),
    ],
)
def test_the_first_condition_that_is_not_as_it_should_be_is_shown(wrong: tuple[str, str, str, str]) -> None:
    kind, status, reason, message = wrong
    later = ("TemplateDrift", "True", "ChangedByHand", "")
    assert standing(READY, *WELL, wrong, later) == (f"{kind}={status}", f"{reason}: {message}")


def test_what_the_spec_asks_for_is_as_it_should_be() -> None:
    fixed = ("DrainProtected", "False", "FixedEndpoints", "Drain it by hand.")
    assert standing(READY, *WELL, fixed)[0] == "Ready=True"
    assert standing(("Ready", "False", "ScaledToZero", ""), *WELL, PROTECTED) == ("Ready=False", "ScaledToZero")


def test_the_quality_is_shown_where_there_is_one() -> None:
    known = {"metadata": {"namespace": "ns", "name": "one"}, "status": {"quality": "Poor"}}
    assert row(known)["quality"] == "Poor"
    assert row({"metadata": {"namespace": "ns", "name": "one"}})["quality"] == ""


def test_a_status_of_an_older_spec_is_marked() -> None:
    condition, message = standing(READY, *WELL, PROTECTED, seen=2)
    assert condition == "Ready=True(stale)"
    assert message.startswith("status of generation 2, the spec is at 3; EndpointsReady: ")


def test_a_server_that_nobody_looked_at_says_so() -> None:
    told = row({"metadata": {"namespace": "ns", "name": "one", "generation": 1}})
    assert (told["condition"], told["message"]) == ("Unknown", "no operator has looked at it yet")


@asynccontextmanager
async def cluster(monkeypatch: pytest.MonkeyPatch, status: int, text: str) -> AsyncIterator[Chores]:
    async def respond(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text=text)

    async with serving(respond) as api:
        monkeypatch.setattr("tailrace.kube.chores.Api", lambda _: api)
        monkeypatch.setattr("tailrace.kube.chores.load", _nothing)
        yield Chores()


async def _nothing(_: object) -> None:
    return None


async def test_a_cluster_without_the_definition_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster(monkeypatch, 404, "404 page not found\n") as chores:
        with pytest.raises(MissingDefinitionError) as told:
            await chores.server_rows(None)
    assert "inferenceservers.inference.tailrace.dev is not installed" in str(told.value)
    assert "tailrace crds | kubectl apply" in str(told.value)


async def test_a_refusal_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(monkeypatch, 503, "no\nserver\n") as chores:
        with pytest.raises(UnreachableError, match=r"^503 : no server$"):
            await chores.server_rows(None)
