"""A real API server takes what the charts render, and a restricted namespace takes the pods."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.charts.helm import CHART, CRD_CHART, VALUE_SETS, Helm, objects, of_kind
from tests.cluster.clusters import Cluster

pytestmark = pytest.mark.cluster

ELSEWHERE = ("monitoring.coreos.com/", "gateway.networking.k8s.io/", "cert-manager.io/")
"""Groups whose definitions the test cluster does not have."""


@pytest.fixture
def restricted(cluster: Cluster, namespace: str) -> str:
    """Return a fresh namespace that enforces the pod security standard `restricted`."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


def judged(cluster: Cluster, document: dict[str, Any]) -> str:
    """Return what the API server has against creating the object; empty when it takes it."""
    text = json.dumps(document)
    result = cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=text, check=False)
    assert bool(result.returncode) <= bool(result.stderr)
    return result.stderr


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_server_takes_every_object(helm: Helm, cluster: Cluster, restricted: str, values: str) -> None:
    sets = [f'watchNamespaces=["{restricted}"]'] if values == "namespaced" else ["dashboard.enabled=true"]
    rendered = helm.render(*sets, values=values, namespace=restricted)
    give_accounts(cluster, rendered)
    asked = [one for one in rendered if not one["apiVersion"].startswith(ELSEWHERE) and one["kind"] != "ServiceAccount"]
    said = {f"{one['kind']}/{one['metadata']['name']}": judged(cluster, one) for one in asked}
    assert {name: text for name, text in said.items() if text} == {}
    assert len(said) > 3


@pytest.mark.parametrize("values", ["default", "exposed"])
def test_a_restricted_namespace_takes_the_pods(helm: Helm, cluster: Cluster, restricted: str, values: str) -> None:
    rendered = helm.render(values=values, namespace=restricted)
    give_accounts(cluster, rendered)
    made = [*of_kind(rendered, "Deployment"), *of_kind(rendered, "Job")]
    pods = [pod(one["metadata"]["name"], restricted, one["spec"]["template"]) for one in made]
    pods += of_kind(rendered, "Pod")
    assert len(pods) == 3
    assert [judged(cluster, one) for one in pods] == ["", "", ""]


def test_a_restricted_namespace_would_have_refused_others(helm: Helm, cluster: Cluster, restricted: str) -> None:
    rendered = helm.render("securityContext.readOnlyRootFilesystem=null", "securityContext.capabilities=null")
    (deployment,) = of_kind(rendered, "Deployment")
    template = deployment["spec"]["template"]
    template["spec"]["serviceAccountName"] = "default"
    assert "unrestricted capabilities" in judged(cluster, pod("weak", restricted, template))


def give_accounts(cluster: Cluster, rendered: list[dict[str, Any]]) -> None:
    """Make the service accounts: admission asks for those of pods."""
    accounts = of_kind(rendered, "ServiceAccount")
    if accounts:
        cluster.apply(*accounts)


def pod(name: str, namespace: str, template: dict[str, Any]) -> dict[str, Any]:
    """Return the pod that a controller would make."""
    metadata = {**template["metadata"], "name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_the_server_takes_the_definition_of_its_chart(helm: Helm, cluster: Cluster) -> None:
    definition = helm.text(chart=CRD_CHART)
    applied = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
    assert cluster.kubectl(*applied, input=definition).stderr == ""
    assert len(objects(definition)) == 1


def test_the_notes_name_objects_of_the_release(helm: Helm, cluster: Cluster) -> None:
    notes = noted(helm, cluster, CHART)
    assert "rollout status deployment/prod-tailrace" in notes
    assert "service/prod-tailrace-proxy 8080:8080" in notes


@pytest.mark.parametrize(("more", "scheme"), [("", "http"), (',"tls":[{"hosts":["llm.test"]}]', "https")])
def test_the_notes_call_an_ingress_by_the_scheme_that_it_has(
    helm: Helm, cluster: Cluster, more: str, scheme: str
) -> None:
    ingress = 'ingress={"enabled":true,"hosts":["llm.test"]' + more + "}"
    assert f" {scheme}://llm.test/v1/models" in noted(helm, cluster, CHART, "--set-json", ingress)


def test_the_notes_of_the_definition_lead_to_an_operator_with_an_image(helm: Helm, cluster: Cluster) -> None:
    assert "--namespace ns --set image.repository=" in noted(helm, cluster, CRD_CHART)


def noted(helm: Helm, cluster: Cluster, chart: Path, *more: str) -> str:
    """Return what helm would say after it had installed a chart as the release `prod`."""
    where = ("--dry-run=client", "--namespace", "ns", "--kubeconfig", cluster.kubeconfig)
    return helm.run("install", "prod", chart, *where, *more).partition("NOTES:")[2]
