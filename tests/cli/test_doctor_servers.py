"""What the doctor says of InferenceServers, their pods and their routers."""

import json
import shlex
from typing import Any

import pytest
from tests.cli.installations import (
    HOME,
    NOW,
    Document,
    conditions,
    deployment,
    gated_pod,
    lease,
    only,
    sound,
    told_server,
    wrong,
)

from tailrace.kube import objects
from tailrace.kube.doctor.examination import examine
from tailrace.kube.doctor.findings import Severity
from tailrace.kube.doctor.routers import Router
from tailrace.kube.doctor.seen import Look, Seen

ADMIN = f"tailrace-admin.{HOME}.svc:9090"


def with_condition(**changed: tuple[str, str]) -> Document:
    return told_server(status={"conditions": conditions(**changed)})


@pytest.mark.parametrize(
    ("changed", "severity"),
    [
        ({"Ready": ("False", "NoEndpointReady")}, Severity.ERROR),
        ({"Degraded": ("True", "InvalidTemplate")}, Severity.ERROR),
        ({"Progressing": ("False", "NameTaken")}, Severity.ERROR),
        ({"DrainProtected": ("False", "OwnPreStop")}, Severity.WARNING),
        ({"TemplateDrift": ("True", "ChangedByHand")}, Severity.WARNING),
        ({"Unheard": ("True", "OfReason")}, Severity.WARNING),
    ],
)
def test_a_condition_that_is_not_as_it_should_be_is_told(
    changed: dict[str, tuple[str, str]], severity: Severity
) -> None:
    finding = only(sound(servers=[with_condition(**changed)]))
    ((kind, (status, reason)),) = changed.items()
    assert finding.severity is severity
    assert finding.message == f"InferenceServer ns/one: {kind} is {status} ({reason}): {reason} it is."
    assert finding.anchor == reason.lower()
    assert finding.commands[0].startswith("kubectl -n ns ")


@pytest.mark.parametrize("condition", [("Ready", "ScaledToZero"), ("DrainProtected", "FixedEndpoints")])
def test_what_somebody_asked_for_is_told_and_not_mended(condition: tuple[str, str]) -> None:
    kind, reason = condition
    seen = sound(servers=[with_condition(**{kind: ("False", reason)})])
    assert wrong(seen) == []
    assert any(reason in finding.message for finding in examine(seen))


def test_a_rollout_under_way_is_well() -> None:
    assert wrong(sound(servers=[with_condition(Progressing=("True", "RollingOut"))])) == []


def test_lines_to_add_stay_in_the_condition_and_the_command_shows_them() -> None:
    server = with_condition(DrainProtected=("False", "GateMissing"))
    server["status"]["conditions"][-1]["message"] = "Pod a: no gate. Add these lines to its template:\nspec:\n  many"
    finding = only(sound(servers=[server]))
    assert finding.message.endswith("Add these lines to its template")
    assert '{.status.conditions[?(@.type=="DrainProtected")].message}' in finding.commands[0]


def test_a_server_that_no_operator_has_looked_at_is_told() -> None:
    finding = only(sound(servers=[told_server(status={"conditions": []})]))
    assert finding.anchor == "no-operator"


def test_a_status_of_an_older_generation_is_told() -> None:
    server = told_server()
    server["metadata"]["generation"] = 2
    finding = only(sound(servers=[server]))
    assert (finding.anchor, finding.severity) == ("no-operator", Severity.WARNING)


# Names and pools


def test_a_name_in_two_namespaces_is_told_once() -> None:
    twice = [
        told_server("one", "ns", spec={"models": [{"name": "a", "aliases": ["shared"]}]}),
        told_server("two", "other", spec={"models": [{"name": "shared"}]}),
    ]
    finding = only(sound(servers=twice))
    assert "'shared' is served in the namespaces ns, other" in finding.message
    assert finding.anchor == "servedintwonamespaces"


def test_a_pool_of_one_namespace_is_no_ambiguity() -> None:
    models = {"models": [{"name": "shared"}]}
    assert wrong(sound(servers=[told_server("one", spec=models), told_server("two", spec=models)])) == []


def test_a_model_that_is_served_is_said_by_whom() -> None:
    found = examine(sound(look=Look(model="model-one")))
    assert [finding.message for finding in found if finding.check == "model"] == [
        "The model 'model-one' is served by ns/one."
    ]


def test_an_unknown_model_gets_the_nearest_name_and_the_patch_that_makes_it_an_alias() -> None:
    server = told_server(spec={"models": [{"name": "x"}, {"name": "llama-3-70b", "aliases": ["big"]}]})
    finding = only(sound(servers=[server], look=Look(model="llama-3-70B")))
    assert "names that are served: 'big', 'llama-3-70b', 'x'" in finding.message
    patch = json.loads(shlex.split(finding.commands[0])[-1])
    assert patch == [{"op": "add", "path": "/spec/models/1/aliases", "value": ["big", "llama-3-70B"]}]


def test_an_unknown_model_without_a_near_name_leads_to_the_list() -> None:
    assert only(sound(look=Look(model="zzz"))).commands == ("kubectl get isvr -A",)


@pytest.mark.parametrize(("in_flight", "capacity", "is_full"), [(31, 32, False), (32, 32, True), (0, 0, False)])
def test_a_pool_is_full_at_its_capacity(in_flight: int, capacity: int, is_full: bool) -> None:
    server = told_server(status={"inFlight": in_flight, "capacity": capacity})
    assert [finding.check for finding in wrong(sound(servers=[server]))] == (["pool"] if is_full else [])


def test_a_pool_of_two_servers_is_full_only_when_both_are() -> None:
    models = {"models": [{"name": "shared"}]}
    busy = told_server("one", status={"inFlight": 8, "capacity": 8}, spec=models)
    idle = told_server("two", status={"inFlight": 0, "capacity": 8}, spec=models)
    assert wrong(sound(servers=[busy, idle])) == []


def test_a_full_pool_grows_by_replicas_where_we_run_the_pods() -> None:
    full = {"inFlight": 4, "capacity": 4}
    ours = only(sound(servers=[told_server(status=full, spec={"capacity": 4, "replicas": 1})]))
    assert ours.commands[0] == "kubectl -n ns scale isvr/one --replicas=2"
    assert '{"spec": {"capacity": 8}}' in ours.commands[1]
    theirs = told_server(status=full, spec={"capacity": 4, "selector": {"matchLabels": {"a": "b"}}})
    assert len(only(sound(servers=[theirs])).commands) == 1


# Gates


def test_silent_gates_are_told_with_the_address_they_call_and_the_right_one() -> None:
    server = with_condition(DrainProtected=("False", "GateUnreachable"))
    live = deployment(env={"GATE_ROUTERS": "10.9.9.9:9090"})
    finding = only(sound(servers=[server], pods=[gated_pod(routers="10.9.9.9:9090")], deployment=live))
    assert "call 10.9.9.9:9090" in finding.message
    assert ADMIN in finding.message
    assert finding.commands[0] == f"kubectl -n {HOME} set env deployment/tailrace TAILRACE_GATE_ROUTERS={ADMIN}"
    assert ADMIN in finding.commands[1]


def test_gates_older_than_the_correction_need_only_new_pods() -> None:
    server = with_condition(DrainProtected=("False", "GateUnreachable"))
    finding = only(sound(servers=[server], pods=[gated_pod(routers="10.9.9.9:9090")]))
    (command,) = finding.commands
    assert command.startswith("kubectl -n ns patch isvr/one --type=merge")
    assert not [each for each in examine(sound(servers=[server])) if "as they should be" in each.message]


def test_silent_gates_at_the_right_address_are_blocked_on_the_way() -> None:
    server = with_condition(DrainProtected=("False", "GateUnreachable"))
    finding = only(sound(servers=[server]))
    assert "something between refuses them" in finding.message
    assert any("networkpolicies" in command for command in finding.commands)


# Pods


def test_pods_without_finalizer_or_gate_are_counted_by_server() -> None:
    bare = gated_pod("b", finalizers=[])
    ungated = gated_pod("c")
    del ungated["spec"]["initContainers"]
    found = wrong(sound(pods=[gated_pod(), bare, ungated]))
    assert [finding.message.partition(" lack ")[2].partition(":")[0] for finding in found] == [
        "the finalizer tailrace.dev/drain",
        "the drain gate",
    ]
    assert all(finding.commands == ("kubectl -n ns rollout restart deployment/one",) for finding in found)


def test_a_server_that_wants_no_gate_gets_none() -> None:
    pod = gated_pod()
    del pod["spec"]["initContainers"]
    assert wrong(sound(servers=[told_server(spec={"drain": {"gate": "None"}})], pods=[pod])) == []


@pytest.mark.parametrize(("seconds_ago", "late"), [(100, False), (620, False), (700, True)])
def test_a_pod_that_outlived_its_drain_deadline_is_told(seconds_ago: int, late: bool) -> None:
    grace = 617
    deleted = objects.timestamp(NOW - seconds_ago + grace)
    pod = gated_pod(deletionTimestamp=deleted, deletionGracePeriodSeconds=grace)
    found = wrong(sound(pods=[pod]))
    assert [finding.anchor for finding in found] == (["pod-past-its-deadline"] if late else [])
    if late:
        assert found[0].commands[-1] == "tailrace release-finalizers --terminating -n ns"


def test_a_finalizer_without_an_owner_is_told_with_the_patch_for_this_very_pod() -> None:
    pod = gated_pod(server="gone", finalizers=["other", "tailrace.dev/drain"])
    finding = only(sound(pods=[pod]))
    assert "InferenceServer ns/gone does not exist" in finding.message
    patch = json.loads(shlex.split(finding.commands[0])[-1])
    assert patch[-1] == {"op": "remove", "path": "/metadata/finalizers/1"}
    assert {"op": "test", "path": "/metadata/uid", "value": "uid-a"} in patch


def test_pods_of_others_are_none_of_our_business() -> None:
    pod = gated_pod(labels={}, finalizers=["theirs"])
    assert wrong(sound(pods=[pod])) == []


def asking_for_gpus() -> Document:
    pod = gated_pod()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    return pod


def test_a_node_that_does_not_tell_gpu_memory_is_told_once_where_pods_ask_for_gpus() -> None:
    second = asking_for_gpus()
    second["metadata"]["name"] = "b"
    finding = only(sound(pods=[asking_for_gpus(), second]))
    assert (finding.about, finding.anchor) == ("n1", "gpu-memory-unknown")
    assert "nvidia.com/gpu.memory" in finding.message


@pytest.mark.parametrize(
    ("spec", "labels", "env"),
    [
        ({"gpuMemoryGB": 80}, {}, {}),
        ({}, {"nvidia.com/gpu.memory": "81559"}, {}),
        ({}, {"example.com/mib": "81559"}, {"GPU_MEMORY_LABELS": "example.com/mib"}),
    ],
)
def test_memory_that_is_known_somehow_is_well(spec: Document, labels: Document, env: dict[str, str]) -> None:
    nodes = {"n1": {"metadata": {"name": "n1", "labels": labels}}}
    live = deployment(env=env)
    assert wrong(sound(servers=[told_server(spec=spec)], pods=[asking_for_gpus()], nodes=nodes, deployment=live)) == []


def test_pods_without_gpus_need_no_labels() -> None:
    assert wrong(sound()) == []


# Routers


def a_router(**changed: Any) -> Router:  # noqa: ANN401
    endpoint = {"uid": "uid-a", "server": "ns/one", "name": "a", "state": "ready", "inFlight": 2}
    told: dict[str, Any] = {
        "url": "http://r:9090",
        "health": "[+]synced ok\n[+]serving ok\nok\n[+]kubernetes ok\nok\n",
        "metrics": '# TYPE x\ntailrace_leader 1.0\ntailrace_watch_age_seconds 3.2\ntailrace_other{a="b"} 5\n',
        "endpoints": [endpoint],
    }
    return Router(**(told | changed))


def test_a_router_that_is_well_says_whether_it_leads_and_what_it_carries() -> None:
    assert wrong(sound(), a_router()) == []
    found = [finding.message for finding in examine(sound(), [a_router()]) if finding.check == "router"]
    assert found == ["Router http://r:9090 is ready: it leads, 1 endpoints, 2 requests in flight."]


@pytest.mark.parametrize(
    ("changed", "anchor", "words"),
    [
        ({"error": "refused"}, "router-unreachable", "can't be asked: refused"),
        ({"health": "[-]synced failed: has not seen a whole list yet\n"}, "router-not-ready", "synced failed: has not"),
        ({"health": "[+]kubernetes ok: 403 Forbidden: pods\n"}, "router-hears-nothing", "403 Forbidden: pods"),
        ({"metrics": "tailrace_watch_age_seconds 240\n"}, "router-hears-nothing", "nothing from the cluster for 240 s"),
        ({"endpoints": ()}, "router-differs", "no requests to 1 pods that are ready (ns/a)"),
        (
            {"endpoints": [{"uid": "uid-a", "server": "ns/one", "state": "starting"}]},
            "router-differs",
            "no requests to 1 pods",
        ),
    ],
)
def test_what_is_wrong_with_a_router_is_told(changed: dict[str, Any], anchor: str, words: str) -> None:
    finding = only(sound(), a_router(**changed))
    assert finding.anchor == anchor
    assert words in finding.message
    assert finding.commands


def test_an_endpoint_whose_pod_is_gone_is_a_ghost_and_a_fixed_one_is_not() -> None:
    known = a_router().endpoints[0]
    fixed = {"uid": "ns/fixed/10.0.0.7:8000", "server": "ns/fixed", "name": "10.0.0.7:8000", "state": "ready"}
    assert wrong(sound(), a_router(endpoints=[known, fixed])) == []
    ghost = {"uid": "uid-gone", "server": "ns/one", "name": "gone", "state": "ready"}
    assert "1 endpoints whose pods are gone (gone)" in only(sound(), a_router(endpoints=[known, ghost])).message
    elsewhere = {"uid": "uid-gone", "server": "other/one", "name": "gone", "state": "ready"}
    assert wrong(sound(look=Look(only=("ns",))), a_router(endpoints=[known, elsewhere])) == []


def test_nobody_leads_is_not_the_fault_of_the_servers() -> None:
    assert {finding.check for finding in wrong(sound(lease=lease(age=600)))} == {"lease"}


# Budgets


def budget(name: str, selector: Document | None, owner: str = "", namespace: str = "ns") -> Document:
    owners = [{"uid": owner, "controller": True, "kind": "InferenceServer"}] if owner else []
    spec = {} if selector is None else {"selector": selector}
    return {"metadata": {"name": name, "namespace": namespace, "ownerReferences": owners}, "spec": spec}


def with_budgets(*budgets: Document, asked: bool = True) -> Seen:
    server = told_server(spec={"disruptionBudget": {"maxUnavailable": 1}} if asked else {})
    own = budget("one", {"matchLabels": {"tailrace.dev/server": "one"}}, owner=objects.uid(server))
    return sound(servers=[server], budgets=[own, *budgets])


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"matchLabels": {"tailrace.dev/server": "one"}},
        {"matchExpressions": [{"key": "tailrace.dev/server", "operator": "Exists"}]},
    ],
)
def test_a_second_budget_for_the_same_pods_is_told_with_what_it_does(selector: Document) -> None:
    finding = only(with_budgets(budget("theirs", selector)))
    assert (finding.severity, finding.anchor) == (Severity.WARNING, "two-disruption-budgets")
    assert "(theirs)" in finding.message
    assert finding.commands == ("kubectl -n ns delete poddisruptionbudget theirs",)
    assert wrong(with_budgets(budget("theirs", selector), asked=False)) == []


@pytest.mark.parametrize(
    "other",
    [
        budget("none", None),
        budget("elsewhere", {}, namespace="shop"),
        budget("others", {"matchLabels": {"app": "db"}}),
        budget("unread", {"matchExpressions": [{"key": "app", "operator": "Odd"}]}),
    ],
)
def test_a_budget_for_other_pods_is_none_of_the_doctors_business(other: Document) -> None:
    assert wrong(with_budgets(other)) == []
