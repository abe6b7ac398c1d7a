"""The rights of the chart, in both its modes, are those of the plain manifests, and the hook has its few own."""

from collections.abc import Iterable
from typing import Any

import pytest
import yaml
from tests.charts.helm import Helm, is_hook, of_kind
from tests.repo.tree import ROOT

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str, str]


def rights(roles: Iterable[dict[str, Any]]) -> set[Right]:
    """Return every (group, resource, name or *, verb) that the roles grant."""
    return {
        (group, resource, name, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


def manifest_roles(kind: str, name: str = "tailrace") -> list[dict[str, Any]]:
    text = (ROOT / "manifests" / "base" / "rbac.yaml").read_text()
    return of_kind(yaml.safe_load_all(text), kind, name)


def bound(rendered: list[dict[str, Any]], account: str, *, hooks: bool = False) -> list[dict[str, Any]]:
    """Return the roles that bindings give to a service account."""
    bindings = [one for kind in ("ClusterRoleBinding", "RoleBinding") for one in of_kind(rendered, kind)]
    mine = [one for one in bindings if is_hook(one) == hooks and one["subjects"][0]["name"] == account]
    return [role_of(one, rendered) for one in mine]


def role_of(binding: dict[str, Any], rendered: list[dict[str, Any]]) -> dict[str, Any]:
    where = binding["metadata"].get("namespace")
    found = of_kind(rendered, binding["roleRef"]["kind"], binding["roleRef"]["name"])
    (role,) = [one for one in found if one["metadata"].get("namespace") == where]
    return role


def test_cluster_mode_has_the_rights_of_the_manifests(helm: Helm) -> None:
    roles = bound(helm.render(), "tailrace")
    assert rights(of_kind(roles, "ClusterRole")) == rights(manifest_roles("ClusterRole"))
    assert rights(of_kind(roles, "Role")) == rights(manifest_roles("Role"))


def test_namespaced_mode_has_the_same_rights_in_each_namespace_and_none_elsewhere(helm: Helm) -> None:
    roles = bound(helm.render('watchNamespaces=["a","b"]'), "tailrace")
    wide = rights(of_kind(roles, "ClusterRole"))
    assert {resource for _, resource, _, _ in wide} == {"nodes", "tokenreviews", "subjectaccessreviews"}
    for namespace in ("a", "b"):
        (role,) = [one for one in of_kind(roles, "Role") if one["metadata"]["namespace"] == namespace]
        assert rights([role]) | wide == rights(manifest_roles("ClusterRole"))
    assert {one["metadata"]["namespace"] for one in of_kind(roles, "Role")} == {"a", "b", "tailrace-system"}


@pytest.mark.parametrize("who", ["edit", "view"])
def test_people_get_the_rights_of_the_manifests(helm: Helm, who: str) -> None:
    (ours,) = of_kind(helm.render(), "ClusterRole", f"tailrace-system-tailrace-{who}")
    (theirs,) = manifest_roles("ClusterRole", f"tailrace-{who}")
    assert rights([ours]) == rights([theirs])
    assert theirs["metadata"]["labels"].items() - ours["metadata"]["labels"].items() == set()


@pytest.mark.parametrize("values", ["default", "namespaced"])
def test_the_hook_may_take_finalizers_off_pods_and_nothing_else(helm: Helm, values: str) -> None:
    rendered = helm.render(values=values)
    (job,) = of_kind(rendered, "Job")
    roles = bound(rendered, job["spec"]["template"]["spec"]["serviceAccountName"], hooks=True)
    assert rights(roles) == {("", "pods", "*", verb) for verb in ("get", "list", "patch")}


def policies(rendered: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the parts of the policy and of its binding, by kind, without their names."""
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    return {kind: one["spec"] | {"policyName": ""} for kind in kinds for one in of_kind(rendered, kind)}


def test_what_the_operator_may_change_of_pods_is_what_the_manifests_say(helm: Helm) -> None:
    text = (ROOT / "manifests" / "base" / "podpolicy.yaml").read_text()
    assert policies(helm.render()) == policies(list(yaml.safe_load_all(text)))
    assert len(policies(helm.render())) == 2


@pytest.mark.parametrize("values", ["default", "namespaced", "exposed"])
def test_the_policy_knows_the_account_that_the_operator_runs_under(helm: Helm, values: str) -> None:
    rendered = helm.render(values=values, namespace="elsewhere")
    (deployment,) = of_kind(rendered, "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    (policy,) = of_kind(rendered, "ValidatingAdmissionPolicy")
    (condition,) = policy["spec"]["matchConditions"]
    assert f'"system:serviceaccount:elsewhere:{account}"' in condition["expression"]
    (binding,) = of_kind(rendered, "ValidatingAdmissionPolicyBinding")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


def test_the_hook_looks_only_where_it_has_rights(helm: Helm) -> None:
    (job,) = of_kind(helm.render('watchNamespaces=["a","b"]'), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["release-finalizers", "--namespace=a", "--namespace=b"]


def test_closed_reads_come_with_a_role_for_those_who_read(helm: Helm) -> None:
    assert not of_kind(helm.render(), "ClusterRole", "tailrace-system-tailrace-read")
    (role,) = of_kind(helm.render("settings.openReads=false"), "ClusterRole", "tailrace-system-tailrace-read")
    assert rights([role]) == {("inference.tailrace.dev", "endpoints", "*", "get")}
