"""The same verdicts as an API server: tests/cluster/test_resource_verdicts.py asks a real one about the same tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.mutations import ACCEPTED, MINIMAL, MODE_CHANGES, REFUSED, RIGHT, TEMPLATE, Change, changed

from tailrace.api.inferenceserver import InferenceServer, Strategy
from tailrace.api.problems import Problem
from tailrace.api.verdict import validate


def problems(document: object, old: dict[str, object] | None = None) -> list[Problem]:
    found = validate(document, old)
    assert isinstance(found, list), "accepted"
    return found


def server(document: object) -> InferenceServer:
    found = validate(document)
    assert isinstance(found, InferenceServer), [str(problem) for problem in found]
    return found


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_a_wrong_field_is_refused_by_its_path(change: Change) -> None:
    found = problems(change.document)
    assert change.path in [problem.path for problem in found]
    assert all(str(problem).startswith(f"{problem.path}: ") and len(problem.message) > 10 for problem in found)


def test_the_table_is_large_enough_to_mean_something() -> None:
    assert len(REFUSED) >= 45
    assert len({str(change) for change in REFUSED}) == len(REFUSED)


@pytest.mark.parametrize("change", ACCEPTED, ids=str)
def test_a_right_document_is_accepted(change: Change) -> None:
    server(change.document)


def test_what_is_left_out_has_its_default() -> None:
    spec = server(MINIMAL).spec
    assert (spec.replicas, spec.port, spec.capacity, spec.gpu_memory_gb) == (1, 8000, 32, None)
    assert (spec.rollout.max_surge, spec.rollout.max_unavailable) == (1, 0)
    assert (spec.rollout.progress_deadline_seconds, spec.rollout.min_ready_seconds) == (3600, 0)
    assert spec.load_balancing.strategy is Strategy.LEAST_ESTIMATED_TTFT
    assert (spec.load_balancing.long_prompt_tokens, spec.load_balancing.long_prompt_min_gpu_memory_gb) == (4096, 80)
    assert (spec.timeouts.connect_seconds, spec.timeouts.total_seconds) == (5, 600)
    assert (spec.drain.timeout_seconds, spec.drain.settle_seconds, spec.drain.shutdown_seconds) == (600, 2, 10)
    assert (spec.engine, spec.drain.gate) == ("vllm", "Sidecar")


@pytest.mark.parametrize("document", RIGHT.values(), ids=RIGHT)
def test_a_document_survives_the_round_trip(document: dict[str, object]) -> None:
    parsed = server(document)
    assert parsed.document() == document
    assert server(parsed.document()) == parsed


def test_a_template_keeps_what_no_rule_reads() -> None:
    template = server(TEMPLATE).spec.template
    assert template is not None
    assert template.document() == TEMPLATE["spec"]["template"]


@pytest.mark.parametrize(("before", "after"), MODE_CHANGES)
def test_the_way_pods_are_found_can_not_change(before: str, after: str) -> None:
    (problem,) = problems(RIGHT[after], RIGHT[before])
    assert problem.path == "spec"
    assert "can't change" in problem.message


@pytest.mark.parametrize("document", RIGHT.values(), ids=RIGHT)
def test_everything_else_may_change(document: dict[str, object]) -> None:
    after = changed(document, "spec/capacity", 7)
    assert isinstance(validate(after, document), InferenceServer)


def test_an_old_version_that_can_not_be_read_is_not_compared_with() -> None:
    assert isinstance(validate(MINIMAL, {"spec": "from another time"}), InferenceServer)


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        ("spec/capacity", 5000, "spec.capacity: must be at most 1000, not 5000"),
        ("spec/capacity", "32", "spec.capacity: must be a whole number, not the text '32'; take the quotes away"),
        ("spec/replica", 3, "spec.replica: unknown field; did you mean replicas?"),
        ("spec/drain", {"gate": False}, "spec.drain.gate: must be 'Sidecar' or 'None', not false"),
        ("spec/models", [], "spec.models: needs at least 1 item; it has 0"),
        ("spec/rollout", {"maxSurge": "x"}, "a percentage such as 25%, not the text 'x'"),
        ("spec/models/0", {}, "spec.models[0].name: is required. Name that requests ask for"),
        ("spec/template", None, "spec: give exactly one of template"),
    ],
)
def test_a_message_says_what_to_do(where: str, value: object, sentence: str) -> None:
    (problem,) = problems(changed(MINIMAL, where, value))
    assert sentence in str(problem)


def test_every_problem_is_told_at_once() -> None:
    document = changed(changed(MINIMAL, "spec/capacity", 0), "spec/port", 0)
    assert {problem.path for problem in problems(document)} == {"spec.capacity", "spec.port"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
PLACES = sorted({change.where for change in REFUSED if change.base == "minimal"} - {"spec/models/1"})


@given(value=JSON)
def test_no_document_at_all_raises(value: object) -> None:
    assert isinstance(validate(value), list)


@given(where=st.sampled_from(PLACES), value=JSON)
def test_no_value_of_any_field_raises(where: str, value: object) -> None:
    try:
        document = changed(MINIMAL, where, value)
    except IndexError:
        return
    for found in (validate(document), validate(MINIMAL, document)):
        assert isinstance(found, InferenceServer) or all(problem.message for problem in found)
