"""The conditions and the status of an InferenceServer from what is known of it."""

from dataclasses import replace
from typing import Any

import pytest
from tests.kube.documents import Document, model, pod, server, understood

from tailrace.core.model import Deletion, EndpointSpec, EndpointState
from tailrace.kube import status, workload
from tailrace.kube.conditions import Facts, Verdict, verdicts
from tailrace.kube.problems import Problem
from tailrace.kube.workload import Installation
from tailrace.link import EndpointReport

NOW = 1767225600.0 + 3600
INSTALLATION = Installation("gate:1", "routers:9090")


def facts(spec: dict[str, Any] | None = None, **known: Any) -> Facts:  # noqa: ANN401
    found = understood(server(**(spec or {})))
    params = workload.gate_params(found.model, INSTALLATION)
    return Facts(server=found, now=NOW, params=params, **known)


def verdict(kind: str, known: Facts) -> Verdict:
    return next(each for each in verdicts(known) if each.type == kind)


def endpoint(uid: str, *, ready: bool = True, reason: str = "", deletion: Deletion | None = None) -> EndpointSpec:
    return EndpointSpec(uid, "ns/one", uid, "h:1", 4, ready=ready, reason=reason, deletion=deletion, gpu_memory_gb=80)


def report(
    uid: str, state: EndpointState = EndpointState.READY, in_flight: int = 0, *, gate: bool = True
) -> EndpointReport:
    return EndpointReport(uid, "ns/one", state, in_flight, gate_seen=gate)


def live(**told: Any) -> Document:  # noqa: ANN401
    """Return a Deployment whose rollout is complete, unless its status is told otherwise."""
    made = workload.deployment(model(), server()["spec"]["template"], facts().params)
    done = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    made["metadata"]["generation"] = 1
    return made | {"status": done | told}


@pytest.mark.parametrize(
    ("known", "status", "reason", "words"),
    [
        (facts(endpoints=[endpoint("a")]), True, "EndpointsReady", "1 of 1"),
        (facts({"replicas": 0}), False, "ScaledToZero", "503"),
        (facts(), False, "NoEndpoints", "no pod yet"),
        (facts({"selector": {"matchLabels": {"a": "b"}}}), False, "NoEndpoints", "spec.selector"),
        (facts(endpoints=[endpoint("a", ready=False, reason="is slow")]), False, "NoEndpointReady", "a: is slow"),
        (facts(endpoints=[endpoint("a")], memory={"a": "node n: no label"}), True, "EndpointsReady", "no long prompts"),
    ],
)
def test_ready_means_that_an_endpoint_takes_requests(known: Facts, status: bool, reason: str, words: str) -> None:
    found = verdict("Ready", known)
    assert (found.status, found.reason) == (status, reason)
    assert words in found.message


STUCK = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow"}]
GOING = endpoint("old", deletion=Deletion(1.0, 2.0))


@pytest.mark.parametrize(
    ("known", "status", "reason"),
    [
        (facts(), True, "CreatingDeployment"),
        (facts(deployment=live()), False, "Complete"),
        (facts(deployment=live(updatedReplicas=0)), True, "RollingOut"),
        (facts(deployment=live(), endpoints=[GOING]), True, "RollingOut"),
        (facts(deployment=live(conditions=STUCK)), False, "ProgressDeadlineExceeded"),
        (facts(problems=[Problem("InvalidTemplate", "x")]), False, "InvalidTemplate"),
        (facts({"endpoints": [{"address": "h:1"}]}), False, "NotManaged"),
    ],
)
def test_a_rollout_is_under_way_until_the_last_old_pod_has_drained(known: Facts, status: bool, reason: str) -> None:
    found = verdict("Progressing", known)
    assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (facts(problems=[Problem("NameTaken", "x")]), "NameTaken"),
        (facts(deployment=live(conditions=STUCK)), "ProgressDeadlineExceeded"),
    ],
)
def test_what_needs_a_person_degrades(known: Facts, reason: str) -> None:
    assert verdict("Degraded", known) == Verdict("Degraded", True, reason, verdict("Degraded", known).message)
    assert not verdict("Degraded", facts(deployment=live())).status


SILENT = {"uid-g": report("uid-g", gate=False)}


def gated(**meta: Any) -> Document:  # noqa: ANN401
    made = pod("g", **meta)
    made["spec"]["initContainers"] = [{"name": "drain-gate", "restartPolicy": "Always"}]
    return made


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (facts(deployment=live()), "Protected"),
        (facts({"drain": {"gate": "None"}}), "GateDisabled"),
        (facts({"endpoints": [{"address": "h:1"}]}), "FixedEndpoints"),
        (facts({"selector": {"matchLabels": {"a": "b"}}}, pods=[pod()]), "GraceTooShort"),
        (facts(pods=[gated()], reports=SILENT), "GateUnreachable"),
        (facts(pods=[gated()], reports=SILENT, listening_since=NOW - 121), "GateUnreachable"),
        (facts(pods=[gated()], reports=SILENT, listening_since=NOW - 119, deployment=live()), "Protected"),
        (facts(pods=[gated()], reports={"uid-g": report("uid-g")}), "Protected"),
        (facts(pods=[gated()]), "Protected"),
        (
            facts(
                pods=[gated(creationTimestamp="2026-01-01T00:59:30Z")], reports={"uid-g": report("uid-g", gate=False)}
            ),
            "Protected",
        ),
    ],
)
def test_drain_protection_says_what_weakens_it(known: Facts, reason: str) -> None:
    found = verdict("DrainProtected", known)
    assert (found.status, found.reason) == (reason == "Protected", reason)


@pytest.mark.parametrize(
    ("installation", "reason", "words"),
    [
        (Installation("gate:1", "moved:9090"), "OtherRouters", "calls routers:9090, and routers are at moved:9090"),
        (Installation("gate:2", "moved:9090"), "OtherRouters", "moved:9090"),
        (Installation("gate:2", "routers:9090"), "OlderImage", "runs gate:1, this release has gate:2"),
        (INSTALLATION, None, ""),
    ],
)
def test_a_gate_that_was_made_with_other_settings_is_outdated(
    installation: Installation, reason: str | None, words: str
) -> None:
    params = workload.gate_params(model(), installation)
    found = {each.type: each for each in verdicts(replace(facts(deployment=live()), params=params))}
    told = found.get("GateOutdated")
    assert (told.reason if told else None) == reason
    assert words in (told.message if told else "")


def test_conditions_of_their_own_do_not_degrade() -> None:
    known = facts(problems=[Problem("AmbiguousSelector", "x")])
    assert verdict("AmbiguousSelector", known).status
    assert not verdict("Degraded", known).status


def test_the_status_counts_by_what_the_data_plane_reports() -> None:
    known = facts(
        {"replicas": 3},
        endpoints=[endpoint("a"), endpoint("b"), endpoint("c", ready=False)],
        reports={"a": report("a", in_flight=3), "b": report("b", EndpointState.DRAINING, 2)},
    )
    told = status.build(known, {})
    assert (told["replicas"], told["readyReplicas"], told["drainingReplicas"]) == (2, 1, 1)
    assert (told["ready"], told["inFlight"], told["capacity"]) == ("1/3", 5, 4)
    assert [each["state"] for each in told["endpoints"]] == ["Draining", "Starting", "Ready"]


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = status.build(facts(), {})
    later = Facts(**{**{f: getattr(facts(), f) for f in Facts.__dataclass_fields__}, "now": NOW + 60})
    second = status.build(later, first)
    assert [c["lastTransitionTime"] for c in second["conditions"]] == [
        c["lastTransitionTime"] for c in first["conditions"]
    ]


def test_a_grade_is_news_but_not_urgent_and_none_is_none() -> None:
    stored = status.build(facts(grade="Good"), {})
    assert stored["quality"] == "Good"
    assert status.differs(status.build(facts(grade="Poor"), stored), stored) == (True, False)
    assert status.differs(status.build(facts(), {}), {**status.build(facts(), {})}) == (False, False)
    assert status.build(facts(), stored)["quality"] is None


def test_counters_are_news_but_not_urgent() -> None:
    stored = status.build(facts(endpoints=[endpoint("a")], reports={"a": report("a")}), {})
    busier = status.build(facts(endpoints=[endpoint("a")], reports={"a": report("a", in_flight=4)}), stored)
    slower = status.build(facts(endpoints=[endpoint("a", ready=False)]), stored)
    assert status.differs(stored, stored) == (False, False)
    assert status.differs(busier, stored) == (True, False)
    assert status.differs(slower, stored) == (True, True)
