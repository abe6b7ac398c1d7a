import json
import os
from base64 import b64decode
from typing import Any

import pytest
import yaml
from cryptography import x509
from tests.charts.goldens import golden, rendered
from tests.charts.helm import CHART, CRD_CHART, VALUE_SETS, Helm, is_hook, objects, of_kind, value_file
from tests.cluster import tools
from tests.repo.tree import ROOT

from tailrace.http.auth import AUDIENCE
from tailrace.kube.webhook import CERTIFICATE, KEY
from tailrace.settings import Settings

pytestmark = pytest.mark.cluster

CHOSEN_BY_THE_CHART = {"settle_seconds": 5.0}
"""Defaults that differ from the code's, which knows no Services and nodes."""
OF_THE_POD = {"replica", "namespace", "gate_image", "pod_uid", "advertise_address", "node"}
FIXED = {"proxy_port", "routing_port", "admin_port", "webhook_port", "kubeconfig", "peer_token_file"}
"""Settings that mean nothing where every pod has an address and an account of its own."""


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(rendered: list[dict[str, Any]]) -> dict[str, str]:
    """Return the container's environment; a field reference stands by its path."""
    (deployment,) = of_kind(rendered, "Deployment")
    entries = container(deployment)["env"]
    return {
        one["name"]: one["value"] if "value" in one else one["valueFrom"]["fieldRef"]["fieldPath"] for one in entries
    }


def test_no_pod_gets_variables_from_services_that_look_like_settings(helm: Helm) -> None:
    """The Service tailrace-proxy would set TAILRACE_PROXY_PORT=tcp://..., and the program would refuse to start."""
    rendered = helm.render()
    made = [*of_kind(rendered, "Deployment"), *of_kind(rendered, "Job")]
    made += of_kind(objects((ROOT / "manifests" / "base" / "deployment.yaml").read_text()), "Deployment")
    specs = [one["spec"]["template"]["spec"] for one in made] + [one["spec"] for one in of_kind(rendered, "Pod")]
    assert len(specs) == 4
    assert [spec.get("enableServiceLinks") for spec in specs] == [False] * 4


def test_helm_is_the_pinned_one(helm: Helm) -> None:
    assert helm.run("version", "--template", "{{.Version}}") == tools.pinned_version(tools.TOOLS["helm"])


@pytest.mark.parametrize("chart", [CHART, CRD_CHART], ids=lambda chart: chart.name)
def test_helm_has_nothing_against_the_chart(helm: Helm, chart: str) -> None:
    assert "WARNING" not in helm.run("lint", "--strict", chart)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_helm_has_nothing_against_the_chart_with_values(helm: Helm, name: str) -> None:
    assert "WARNING" not in helm.run("lint", "--strict", CHART, "--values", value_file(name))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_chart_renders_what_is_committed(helm: Helm, name: str) -> None:
    assert rendered(helm, name) == golden(name).read_text(), "look at the change, then `python -m tests.charts.goldens`"


def test_every_setting_of_the_code_is_a_value_of_the_chart(helm: Helm) -> None:
    given = {
        name.removeprefix("TAILRACE_").lower() for name in environment(helm.render()) if name.startswith("TAILRACE_")
    }
    assert given == Settings.model_fields.keys() - FIXED - {"webhook_certificates"}


def test_the_default_values_are_the_defaults_of_the_code(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAILRACE_")]:
        monkeypatch.delenv(name)
    defaults = Settings()
    for name, value in environment(helm.render()).items():
        monkeypatch.setenv(name, value)
    differing = {
        name: value
        for name, value in Settings().model_dump().items()
        if value != getattr(defaults, name) and name not in OF_THE_POD
    }
    assert differing == CHOSEN_BY_THE_CHART


def test_large_numbers_and_lists_reach_the_program_as_it_reads_them(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (
        "settings.bodyBudgetBytes=8589934592",
        'settings.gpuMemoryLabels=["a/b","c"]',
        'watchNamespaces=["x","y"]',
    )
    for name, value in environment(helm.render(*values)).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.body_budget_bytes == 8589934592
    assert (settings.gpu_memory_labels, settings.watch_namespaces) == (("a/b", "c"), ("x", "y"))


@pytest.mark.parametrize(("settle", "shutdown", "grace"), [(5, 600, 635), (0, 0, 30), (0.5, 900.5, 932)])
def test_the_grace_period_holds_settle_and_shutdown(helm: Helm, settle: float, shutdown: float, grace: int) -> None:
    objects = helm.render(f"settings.settleSeconds={settle}", f"settings.shutdownSeconds={shutdown}")
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace


def admin_address(rendered: list[dict[str, Any]]) -> str:
    (service,) = [one for one in of_kind(rendered, "Service") if one["spec"].get("clusterIP") == "None"]
    (port,) = service["spec"]["ports"]
    return f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port['port']}"


@pytest.mark.parametrize("release", ["tailrace", "prod", "my-tailrace"])
def test_gates_are_told_the_headless_service_of_their_release(helm: Helm, release: str) -> None:
    found = objects(helm.run("template", release, CHART, "--namespace", "elsewhere"))
    assert environment(found)["TAILRACE_GATE_ROUTERS"] == admin_address(found)


def test_replicas_have_a_token_to_show_each_other_where_the_program_looks_for_it(helm: Helm) -> None:
    (deployment,) = of_kind(helm.render(), "Deployment")
    (mount,) = [one for one in container(deployment)["volumeMounts"] if one["name"] == "peer-token"]
    (volume,) = [one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "peer-token"]
    (token,) = [source["serviceAccountToken"] for source in volume["projected"]["sources"]]
    assert f"{mount['mountPath']}/{token['path']}" == Settings().peer_token_file
    assert token["audience"] == AUDIENCE


def test_stopping_replicas_stay_in_the_headless_service(helm: Helm) -> None:
    (service,) = of_kind(helm.render(), "Service", "tailrace-admin")
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_every_selector_of_the_chart_means_the_operators_pods_only(helm: Helm) -> None:
    everything = helm.render("networkPolicy.enabled=true")
    (deployment,) = of_kind(everything, "Deployment")
    own = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [service["spec"]["selector"] for service in of_kind(everything, "Service")]
    selectors += [of_kind(everything, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"]]
    selectors += [of_kind(everything, "NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"]]
    others = [of_kind(everything, "Job")[0]["spec"]["template"], *of_kind(everything, "Pod")]
    for selector in selectors:
        assert selector.items() <= own
        assert all(not selector.items() <= other["metadata"]["labels"].items() for other in others)


def test_a_new_version_of_the_chart_alone_restarts_no_router(helm: Helm) -> None:
    (deployment,) = of_kind(helm.render(), "Deployment")
    assert "helm.sh/chart" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_two_releases_share_no_object(helm: Helm) -> None:
    def names(release: str, namespace: str) -> set[tuple[str, str, str]]:
        text = helm.run("template", release, CHART, "--namespace", namespace, "--set", "watchNamespaces={apps}")
        return {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects(text)}

    assert not names("tailrace", "a") & names("tailrace", "b")
    assert not names("one", "a") & names("two", "a")


def test_the_admin_port_admits_the_gates_of_the_served_namespaces(helm: Helm) -> None:
    def admitted(*sets: str) -> list[Any]:
        (policy,) = of_kind(helm.render("networkPolicy.enabled=true", *sets), "NetworkPolicy")
        (rule,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "admin"}]]
        peers: list[Any] = rule["from"]
        return peers

    assert admitted() == [{"namespaceSelector": {}}]
    (peer,) = admitted('watchNamespaces=["a","b"]')
    assert peer["namespaceSelector"]["matchExpressions"][0]["values"] == ["a", "b", "tailrace-system"]


def webhook(rendered: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one webhook."""
    (configuration,) = of_kind(rendered, "MutatingWebhookConfiguration")
    (found,) = configuration["webhooks"]
    return dict(found)


@pytest.mark.parametrize("values", ["default", "namespaced", "exposed"])
def test_the_webhook_is_asked_where_the_replicas_answer_and_may_be_away(helm: Helm, values: str) -> None:
    rendered = helm.render("webhook.enabled=true", values=values)
    asked = webhook(rendered)
    (service,) = of_kind(rendered, "Service", asked["clientConfig"]["service"]["name"])
    (deployment,) = of_kind(rendered, "Deployment")
    ports = {port["name"]: port["containerPort"] for port in container(deployment)["ports"]}
    assert ports[service["spec"]["ports"][0]["targetPort"]] == Settings().webhook_port
    assert service["spec"]["ports"][0]["port"] == 443
    assert not service["spec"].get("publishNotReadyAddresses")
    assert (asked["failurePolicy"], asked["sideEffects"]) == ("Ignore", "None")
    assert asked["clientConfig"]["service"]["path"] == "/pods"


def test_the_webhook_finds_its_certificate_where_it_is_mounted(helm: Helm) -> None:
    rendered = helm.render("webhook.enabled=true")
    (deployment,) = of_kind(rendered, "Deployment")
    (secret,) = of_kind(rendered, "Secret")
    (volume,) = [one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "webhook"]
    (mount,) = [one for one in container(deployment)["volumeMounts"] if one["name"] == "webhook"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    assert mount["mountPath"] == environment(rendered)["TAILRACE_WEBHOOK_CERTIFICATES"]
    assert secret["data"].keys() >= {CERTIFICATE, KEY}


def test_the_certificate_of_the_chart_is_for_its_service_and_signed_by_what_the_api_server_trusts(helm: Helm) -> None:
    rendered = helm.render("webhook.enabled=true")
    (secret,) = of_kind(rendered, "Secret")
    asked = webhook(rendered)["clientConfig"]
    authority = x509.load_pem_x509_certificate(b64decode(asked["caBundle"]))
    certificate = x509.load_pem_x509_certificate(b64decode(secret["data"]["tls.crt"]))
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    service = asked["service"]
    assert names.get_values_for_type(x509.DNSName) == [f"{service['name']}.{service['namespace']}.svc"]


def test_the_webhook_is_asked_about_served_namespaces_only(helm: Helm) -> None:
    def namespaces(*sets: str) -> tuple[str, list[str]]:
        selector = webhook(helm.render("webhook.enabled=true", *sets))["namespaceSelector"]
        (term,) = selector["matchExpressions"]
        return term["operator"], term["values"]

    assert namespaces('watchNamespaces=["a","b"]') == ("In", ["a", "b"])
    assert namespaces() == ("NotIn", ["kube-system", "kube-node-lease", "kube-public", "tailrace-system"])


def test_what_ends_the_release_lives_only_then(helm: Helm) -> None:
    for values in ("default", "namespaced"):
        everything = [one for one in helm.render(values=values) if "release-finalizers" in one["metadata"]["name"]]
        assert {one["kind"] for one in everything} >= {"ServiceAccount", "Job"}
        assert {one["metadata"]["annotations"]["helm.sh/hook"] for one in everything} == {"post-delete"}


def test_nothing_is_left_of_what_is_switched_off(helm: Helm) -> None:
    kinds = {one["kind"] for one in helm.render(values="bare")}
    assert kinds == {"Deployment", "Service"}


def test_the_definition_is_kept_unless_told_otherwise(helm: Helm) -> None:
    def annotations(*args: str) -> dict[str, str]:
        (definition,) = objects(helm.text(*args, chart=CRD_CHART))
        found: dict[str, str] = definition["metadata"].get("annotations") or {}
        return found

    assert annotations() == {"helm.sh/resource-policy": "keep"}
    assert annotations("--set", "keep=false", "--set", "annotations.a=b") == {"a": "b"}


def test_a_route_and_a_monitor_have_the_shape_that_their_controllers_read(helm: Helm) -> None:
    (route,) = of_kind(helm.render(values="exposed"), "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "router-proxy", "port": 8080}]
    assert rule["timeouts"] == {"request": "0s"}
    (monitor,) = of_kind(watched := helm.render(values="namespaced"), "ServiceMonitor")
    (service,) = of_kind(watched, "Service", "tailrace-admin")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == [one["name"] for one in service["spec"]["ports"]]
    assert monitor["spec"]["endpoints"][0]["honorLabels"] is True


def test_the_dashboard_arrives_whole(helm: Helm) -> None:
    (found,) = of_kind(helm.render("dashboard.enabled=true"), "ConfigMap")
    source = (CHART / "monitoring" / "dashboard.json").read_text()
    assert json.loads(found["data"]["tailrace.json"]) == json.loads(source)


def test_hooks_are_told_from_what_stays(helm: Helm) -> None:
    assert {one["kind"] for one in helm.render() if is_hook(one)} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "Job",
        "Pod",
        "ServiceAccount",
    }
    assert yaml.safe_load(value_file("default").read_text()) == {}
