"""What the doctor says of the operator itself."""

from typing import Any

import pytest
from tests.cli.installations import HELM, HOME, conditions, deployment, lease, only, shipped, sound, told_server, wrong

from tailrace.api.crd import custom_resource_definition
from tailrace.kube.doctor.definition import differences
from tailrace.kube.doctor.examination import examine
from tailrace.kube.doctor.findings import PAGE, Severity
from tailrace.kube.doctor.rights import RULES, Question, Where, questions, review
from tailrace.kube.doctor.seen import Look, Part, account_of

ESTABLISHED = [{"type": "Established", "status": "True"}]


def test_nothing_is_wrong_with_a_sound_installation() -> None:
    assert wrong(sound()) == []
    assert {finding.check for finding in examine(sound())} >= {"api-server", "crd", "rights", "deployment", "lease"}


@pytest.mark.parametrize(("minor", "well"), [("32", False), ("33", True), ("33+", True), ("", False)])
def test_the_api_server_must_know_native_sidecars(minor: str, well: bool) -> None:
    found = wrong(sound(version={"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}))
    assert [finding.anchor for finding in found] == ([] if well else ["old-api-server"])


def test_a_missing_definition_is_applied_by_this_very_program() -> None:
    finding = only(sound(crd=None, servers=(), pods=()))
    assert finding.anchor == "missing-definition"
    assert finding.commands == ("tailrace crds | kubectl apply --server-side --force-conflicts -f -",)


def test_a_definition_that_clashes_is_told_with_the_reason() -> None:
    clash = {"type": "Established", "status": "False", "message": "the name is taken"}
    finding = only(sound(crd=custom_resource_definition() | {"status": {"conditions": [clash]}}))
    assert finding.anchor == "definition-not-established"
    assert "the name is taken" in finding.message


def test_a_definition_of_helm_is_upgraded_by_helm() -> None:
    crd = custom_resource_definition() | {"status": {"conditions": ESTABLISHED}, "metadata": HELM}
    crd["spec"]["versions"][0]["subresources"] = {"status": {}}
    finding = only(sound(crd=crd))
    assert (finding.severity, finding.anchor) == (Severity.WARNING, "definition-differs")
    assert "subresources.scale" in finding.message
    assert finding.commands == ("helm upgrade rel charts/tailrace-crds -n there",)


def test_differences_are_paths() -> None:
    ours: dict[str, Any] = {"a": {"b": 1, "c": [1, 2]}, "d": [1]}
    theirs: dict[str, Any] = {"a": {"b": 2, "c": [1, 3]}, "d": [1, 2]}
    assert list(differences(ours, theirs, "")) == ["a.b", "a.c[1]", "d"]
    assert list(differences(ours, ours, "")) == []


def test_the_table_of_rights_is_the_shipped_one() -> None:
    rules = [
        (document["kind"], group, resource, tuple(rule["verbs"]))
        for document in shipped("rbac.yaml")
        if document["kind"] in ("ClusterRole", "Role") and document["metadata"]["name"] == "tailrace"
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    kinds = {Where.CLUSTER: "ClusterRole", Where.SERVED: "ClusterRole", Where.HOME: "Role"}
    table = [(kinds[rule.where], rule.group, rule.resource, rule.verbs) for rule in RULES]
    assert sorted(table) == sorted(rules)


def test_rights_are_asked_where_they_must_hold() -> None:
    asked = questions("home", ["a", "b"])
    places = {(each.rule.resource, each.namespace) for each in asked}
    assert {("pods", "a"), ("pods", "b"), ("pods", "home"), ("nodes", ""), ("leases", "home")} <= places
    assert ("pods", "") not in places


def test_a_review_asks_as_the_service_account_about_the_part() -> None:
    rule = next(rule for rule in RULES if rule.resource.endswith("/status"))
    spec = review(Question(rule, "patch", "ns"), "home/account")["spec"]
    assert spec["user"] == "system:serviceaccount:home:account"
    assert "system:serviceaccounts:home" in spec["groups"]
    assert spec["resourceAttributes"] == {
        "group": "inference.tailrace.dev",
        "resource": "inferenceservers",
        "subresource": "status",
        "verb": "patch",
        "namespace": "ns",
    }


def test_a_missing_right_is_one_finding_with_its_verbs_and_what_fails() -> None:
    may = {each: not (each.rule.resource == "pods" and each.verb in ("watch", "patch")) for each in sound().may}
    finding = only(sound(may=may))
    assert finding.message.startswith(f"ServiceAccount {HOME}/tailrace may not watch, patch pods in the whole cluster")
    assert finding.commands == (
        "kubectl apply -f manifests/base/rbac.yaml",
        f"kubectl auth can-i watch pods -A --as=system:serviceaccount:{HOME}:tailrace",
    )


def test_rights_of_a_helm_release_come_back_by_helm() -> None:
    live = deployment() | {"metadata": HELM | {"name": "tailrace", "namespace": HOME}}
    finding = only(sound(may=dict.fromkeys([next(iter(sound().may))], False), deployment=live))
    assert finding.commands[0] == "helm upgrade rel charts/tailrace -n there --reset-then-reuse-values"


def test_the_account_is_the_one_asked_for_else_the_deployments() -> None:
    live = deployment()
    live["spec"]["template"]["spec"]["serviceAccountName"] = "own"
    assert account_of(Look(), live) == f"{HOME}/own"
    assert account_of(Look(service_account="ns/other"), live) == "ns/other"
    assert account_of(Look(service_account="other"), live) == f"{HOME}/other"
    assert account_of(Look(name="rel-tailrace"), None) == f"{HOME}/rel-tailrace"


@pytest.mark.parametrize(
    ("changed", "anchor"),
    [
        ({"account": None}, "missing-service-account"),
        ({"deployment": None}, "missing-deployment"),
        ({"deployment": deployment(replicas=0, available=0)}, "operator-not-available"),
        ({"deployment": deployment(available=0)}, "operator-not-available"),
        ({"deployment": deployment(replicas=2, available=1)}, "operator-not-available"),
        ({"slices": ()}, "admin-service-leads-nowhere"),
        ({"lease": None}, "nobody-leads"),
        ({"lease": lease(age=60)}, "nobody-leads"),
        ({"lease": lease(holder="")}, "nobody-leads"),
        ({"deployment": deployment(env={"GATE_ROUTERS": f"gone.{HOME}.svc:9090"})}, "gateunreachable"),
        ({"deployment": deployment(env={"GATE_ROUTERS": f"tailrace-admin.{HOME}.svc:1"})}, "gateunreachable"),
        ({"deployment": deployment(env={"GATE_ROUTERS": "no-port"})}, "gateunreachable"),
    ],
)
def test_each_broken_part_is_told_alone_and_with_a_command(changed: dict[str, Any], anchor: str) -> None:
    finding = only(sound(**changed))
    assert finding.anchor == anchor
    assert finding.commands
    assert finding.view()["page"] == f"{PAGE}#{anchor}"


@pytest.mark.parametrize("routers", [f"tailrace-admin.{HOME}.svc:9090", "10.0.0.1:9090", "a.other.svc:1,b.example:2"])
def test_addresses_that_can_not_be_judged_from_here_are_left_alone(routers: str) -> None:
    assert wrong(sound(deployment=deployment(env={"GATE_ROUTERS": routers}))) == []


def test_missing_services_are_named_together() -> None:
    finding = only(sound(services={"tailrace-admin": sound().services["tailrace-admin"]}))
    assert "tailrace-proxy, tailrace-routing" in finding.message


def test_why_replicas_are_not_available_is_quoted() -> None:
    live = deployment(available=0)
    live["status"]["conditions"] = [
        {"type": "Available", "status": "False", "message": "too few"},
        {"type": "ReplicaFailure", "status": "True", "message": "quota exceeded"},
    ]
    assert "quota exceeded" in only(sound(deployment=live)).message


def test_the_lease_of_a_release_has_the_name_that_its_deployment_says() -> None:
    found = examine(sound(deployment=deployment(env={"LEASE_NAME": "rel"})))
    assert [finding.about for finding in found if finding.check == "lease"] == ["rel"]


def test_what_may_not_be_read_is_told_and_nothing_is_guessed_from_it() -> None:
    found = wrong(sound(deployment=None, lease=None, denied={Part.DEPLOYMENT: "no", Part.LEASE: "no"}))
    assert {(finding.about, finding.anchor) for finding in found} == {
        ("deployments", "not-allowed-to-look"),
        ("leases", "not-allowed-to-look"),
    }


def test_a_server_that_is_not_well_does_not_make_the_operator_look_ill() -> None:
    ill = told_server(status={"conditions": conditions(Ready=("False", "NoEndpointReady"))})
    assert {finding.check for finding in wrong(sound(servers=[ill]))} == {"server"}
