"""What the PodDisruptionBudget of an InferenceServer should be, and when it has to change."""

from typing import Any

import pytest
from tests.kube.documents import Document, model

from tailrace.api import names
from tailrace.kube.budget import budget, change


def wanted(**asked: Any) -> Document:  # noqa: ANN401
    found = budget(model(disruptionBudget=asked))
    assert found is not None
    return found


def live(**spec: Any) -> Document:  # noqa: ANN401
    """Return a budget as the API server has it."""
    found = wanted(maxUnavailable=1)
    return found | {"metadata": found["metadata"] | {"uid": "u"}, "spec": found["spec"] | spec, "status": {}}


def test_without_the_word_there_is_none() -> None:
    assert budget(model()) is None


def test_it_holds_the_pods_of_its_server_and_goes_with_it() -> None:
    found = wanted(minAvailable="50%")
    assert found["spec"]["minAvailable"] == "50%"
    assert "maxUnavailable" not in found["spec"]
    assert found["spec"]["selector"] == {"matchLabels": {names.LABEL_SERVER: "one"}}
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("uid-one", True)
    assert found["metadata"]["labels"][names.LABEL_SERVER] == "one", "the watch selects on it"


def test_a_budget_that_is_as_it_should_be_is_left_alone() -> None:
    assert change(live(), wanted(maxUnavailable=1)) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"maxUnavailable": 2},
        {"maxUnavailable": None, "minAvailable": 1},
        {"selector": {"matchLabels": {names.LABEL_SERVER: "one", "app": "x"}}},
        {"unhealthyPodEvictionPolicy": "IfHealthyBudget"},
    ],
)
def test_a_budget_that_was_changed_is_brought_back_as_a_whole(spec: Document) -> None:
    guard, replacing = change(live(**spec), wanted(maxUnavailable=1))
    assert guard == {"op": "test", "path": "/metadata/uid", "value": "u"}
    assert replacing["value"] == wanted(maxUnavailable=1)["spec"]
