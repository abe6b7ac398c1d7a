"""An upgrade brings the definition first: the running operator meets fields and values it has never heard of."""

from typing import Any

import pytest
from pydantic import ValidationError
from tests.kube.documents import server, understood

from tailrace.api.inferenceserver import Strategy
from tailrace.api.stored import read_stored
from tailrace.kube import workload
from tailrace.kube.conditions import Facts, verdicts
from tailrace.kube.servers import understand
from tailrace.kube.workload import Installation

NEWER: dict[str, Any] = {
    "capacity": 7,
    "tiers": {"premium": 25},
    "loadBalancing": {"strategy": "Telepathy", "warp": 9, "session": {"mode": "Firm", "ttlSeconds": 60}},
}


def test_what_a_newer_definition_fills_in_is_left_out_and_the_rest_is_served() -> None:
    found = understood(server(**NEWER))
    balancing = found.model.spec.load_balancing
    assert (found.model.spec.capacity, balancing.session.ttl_seconds, balancing.strategy) == (
        7,
        60,
        type(balancing)().strategy,
    )
    assert found.error == ""
    assert sorted(found.ignored) == [
        "spec.loadBalancing.session.mode",
        "spec.loadBalancing.strategy",
        "spec.loadBalancing.warp",
        "spec.tiers",
    ]


def test_a_change_under_a_newer_definition_takes_effect() -> None:
    before = understood(server(replicas=1))
    after = understand(server(replicas=3, **NEWER), before)
    assert after is not None
    assert after.model.spec.replicas == 3


def test_the_fields_are_named_in_a_condition() -> None:
    found = understood(server(**NEWER))
    params = workload.gate_params(found.model, Installation("gate:1", "routers:9090"))
    told = next(each for each in verdicts(Facts(found, 0.0, params)) if each.type == "FieldsIgnored")
    assert told.status
    assert told.reason == "NewerDefinition"
    assert "spec.loadBalancing.warp" in told.message


def test_nothing_is_ignored_of_what_is_known() -> None:
    found = understood(server(loadBalancing={"strategy": "LeastRequests"}))
    assert found.ignored == ()
    assert found.model.spec.load_balancing.strategy is Strategy.LEAST_REQUESTS


@pytest.mark.parametrize(
    "spec",
    [
        {"capacity": 0},
        {"capacity": 0, "tiers": {}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Resembles"}]}},
    ],
)
def test_what_is_wrong_or_can_not_be_left_out_is_still_not_understood(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_stored(server(**spec))
    before = understood(server())
    after = understand(server(**spec), before)
    assert after is not None
    assert after.model == before.model
    assert after.error
