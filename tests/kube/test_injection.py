import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from tailrace.api import names
from tailrace.cli.drain_gate import TOKEN_FILE, drain_gate
from tailrace.kube.injection import GateParams, inject

PARAMS = GateParams(image="registry.example/tailrace:1", routers="tailrace.tailrace-system:9090", server="llama-h100")
NO_GATE = GateParams(image="i", routers="r:1", server="llama-h100", gate=False)
HOOK = {"httpGet": {"path": "/wait", "port": 9397}}

USERS_OWN: dict[str, Any] = yaml.safe_load("""
metadata:
  labels: {app: llama}
  annotations: {traffic.sidecar.istio.io/excludeInboundPorts: "8002, 9000", team: a}
  finalizers: [example.com/audit]
spec:
  initContainers:
  - {name: download, image: aws, command: [s3, cp]}
  - {name: shipper, image: fluent, restartPolicy: Always, livenessProbe: {httpGet: {path: /, port: 1}}}
  containers:
  - name: vllm
    image: vllm/vllm-openai
    livenessProbe: {httpGet: {path: /health, port: 8000}}
    startupProbe: {httpGet: {path: /health, port: 8000}, terminationGracePeriodSeconds: 90}
    readinessProbe: {httpGet: {path: /health, port: 8000}}
  - name: exporter
    image: exporter
    lifecycle: {postStart: {exec: {command: [touch, /tmp/x]}}, preStop: {exec: {command: [sleep, "5"]}}}
  volumes:
  - {name: cache, emptyDir: {}}
""")
SMALLEST: dict[str, Any] = {"spec": {"containers": [{"name": "vllm", "image": "v"}]}}
NULLS: dict[str, Any] = {
    "metadata": {"labels": None, "annotations": None, "finalizers": None},
    "spec": {
        "initContainers": None,
        "volumes": None,
        "terminationGracePeriodSeconds": None,
        "containers": [{"name": "vllm", "lifecycle": None, "livenessProbe": None}],
    },
}
EMPTY: dict[str, Any] = {}
TEMPLATES = pytest.mark.parametrize("template", [USERS_OWN, SMALLEST, NULLS, EMPTY])


def gate_of(template: dict[str, Any]) -> dict[str, Any]:
    gate: dict[str, Any] = template["spec"]["initContainers"][0]
    assert gate["name"] == names.GATE_CONTAINER
    return gate


def params(**changes: str | int) -> GateParams:
    return replace(PARAMS, **changes)  # type: ignore[arg-type]


@TEMPLATES
@pytest.mark.parametrize("chosen", [PARAMS, NO_GATE], ids=["gate", "none"])
def test_injection_does_not_touch_its_input(template: dict[str, Any], chosen: GateParams) -> None:
    before = deepcopy(template)
    inject(template, chosen)
    assert template == before


@TEMPLATES
@pytest.mark.parametrize("chosen", [PARAMS, NO_GATE], ids=["gate", "none"])
def test_injecting_twice_is_injecting_once(template: dict[str, Any], chosen: GateParams) -> None:
    once = inject(template, chosen)
    assert json.dumps(inject(once, chosen)) == json.dumps(once)


def test_the_result_shares_nothing_with_the_input() -> None:
    result = inject(USERS_OWN, PARAMS)
    result["spec"]["containers"][0]["image"] = "changed"
    assert inject(USERS_OWN, PARAMS)["spec"]["containers"][0]["image"] == "vllm/vllm-openai"


def test_what_the_user_wrote_stays() -> None:
    result = inject(USERS_OWN, PARAMS)
    assert result["metadata"]["labels"]["app"] == "llama"
    assert result["metadata"]["annotations"]["team"] == "a"
    assert [container["name"] for container in result["spec"]["initContainers"][1:]] == ["download", "shipper"]
    assert result["spec"]["volumes"][0] == {"name": "cache", "emptyDir": {}}
    assert result["spec"]["containers"][1]["lifecycle"] == USERS_OWN["spec"]["containers"][1]["lifecycle"]
    assert result["spec"]["containers"][0]["readinessProbe"] == {"httpGet": {"path": "/health", "port": 8000}}


def test_the_gate_is_a_native_sidecar_that_starts_first() -> None:
    gate = gate_of(inject(USERS_OWN, PARAMS))
    assert gate["restartPolicy"] == "Always"
    assert gate["image"] == "registry.example/tailrace:1"
    assert gate["command"] == ["tailrace", "drain-gate"]
    assert gate["ports"] == [{"name": "tailrace-gate", "containerPort": 9397, "protocol": "TCP"}]
    fields = {env["name"]: env["valueFrom"]["fieldRef"]["fieldPath"] for env in gate["env"]}
    assert fields == {"POD_IP": "status.podIP", "POD_UID": "metadata.uid"}


def test_the_gates_arguments_are_what_the_command_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.command()(drain_gate)
    monkeypatch.setenv("POD_IP", "10.0.0.7")
    monkeypatch.setenv("POD_UID", "u")
    gate = gate_of(inject(USERS_OWN, params(engine="sglang", port=30000, drain_timeout=120, routers="a:1,b:2")))
    values = get_command(app).make_context("drain-gate", list(gate["args"])).params
    assert (values["routers"], values["port"], values["engine"]) == ("a:1,b:2", 9397, "sglang")
    assert (values["engine_port"], values["timeout_seconds"]) == (30000, 120)
    assert str(values["token_file"]) == str(TOKEN_FILE)


def test_the_gate_runs_under_the_restricted_pod_security_standard() -> None:
    assert gate_of(inject(SMALLEST, PARAMS))["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


GPU = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 1}


@pytest.mark.parametrize(
    "resources",
    [{"limits": GPU}, {"limits": GPU, "requests": GPU}, {"limits": GPU, "requests": {"cpu": 8, "memory": "65536Mi"}}],
)
def test_a_pod_of_the_guaranteed_class_stays_one(resources: dict[str, Any]) -> None:
    template = inject({"spec": {"containers": [{"name": "engine", "resources": resources}]}}, PARAMS)
    for injected in (template, inject(template, PARAMS)):
        gate = gate_of(injected)["resources"]
        assert gate["requests"] == gate["limits"] == {"cpu": "100m", "memory": "128Mi"}


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"limits": {"cpu": "8"}},
        {"limits": {"nvidia.com/gpu": 1}},
        {"limits": GPU, "requests": {"cpu": "2"}},
        {"limits": GPU, "requests": {"memory": "2Gi"}},
    ],
)
def test_in_any_other_pod_the_gate_starts_as_fast_as_it_can(resources: dict[str, Any]) -> None:
    guaranteed = {"name": "beside", "resources": {"limits": GPU}}
    template = {"spec": {"containers": [guaranteed, {"name": "engine", "resources": resources}]}}
    assert gate_of(inject(template, PARAMS))["resources"]["limits"] == {"cpu": "1", "memory": "128Mi"}


def test_no_probe_of_the_gate_depends_on_routers_or_can_kill_it_later() -> None:
    gate = gate_of(inject(SMALLEST, PARAMS))
    assert gate["startupProbe"]["httpGet"] == {"path": "/healthz", "port": 9397}
    assert "livenessProbe" not in gate
    assert "readinessProbe" not in gate


def test_the_gates_token_is_projected_for_the_routers_only() -> None:
    spec = inject(USERS_OWN, PARAMS)["spec"]
    (mount,) = gate_of({"spec": spec})["volumeMounts"]
    volume = spec["volumes"][-1]
    assert mount["name"] == volume["name"]
    assert f"{mount['mountPath']}/token" == str(TOKEN_FILE)
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"audience": "tailrace", "expirationSeconds": 3600, "path": "token"}}
    ]
    assert all("volumeMounts" not in container for container in spec["containers"])


def test_every_regular_container_without_a_hook_waits_for_the_gate() -> None:
    template = {"spec": {"containers": [{"name": "a"}, {"name": "b", "lifecycle": {"postStart": {"exec": {}}}}]}}
    first, second = inject(template, PARAMS)["spec"]["containers"]
    assert first["lifecycle"] == {"preStop": HOOK}
    assert second["lifecycle"] == {"postStart": {"exec": {}}, "preStop": HOOK}


def test_init_containers_get_no_hook() -> None:
    assert all("lifecycle" not in container for container in inject(USERS_OWN, PARAMS)["spec"]["initContainers"])


def test_a_mesh_is_told_to_leave_the_gates_port_alone() -> None:
    annotations = inject(USERS_OWN, PARAMS)["metadata"]["annotations"]
    assert annotations["traffic.sidecar.istio.io/excludeInboundPorts"] == "8002,9000,9397"
    assert annotations["config.linkerd.io/skip-inbound-ports"] == "9397"


@pytest.mark.parametrize("chosen", [PARAMS, NO_GATE], ids=["gate", "none"])
def test_finalizer_label_and_figures_are_there_with_a_gate_and_without(chosen: GateParams) -> None:
    metadata = inject(USERS_OWN, chosen)["metadata"]
    assert metadata["finalizers"] == ["example.com/audit", "tailrace.dev/drain"]
    assert metadata["labels"]["tailrace.dev/server"] == "llama-h100"
    figures = {key: value for key, value in metadata["annotations"].items() if key.startswith("tailrace.dev/")}
    assert figures == {
        "tailrace.dev/drain-timeout-seconds": "600",
        "tailrace.dev/drain-settle-seconds": "2",
        "tailrace.dev/drain-shutdown-seconds": "10",
        "tailrace.dev/port": "8000",
    }


@pytest.mark.parametrize("chosen", [PARAMS, NO_GATE], ids=["gate", "none"])
def test_probes_that_kill_get_a_short_grace_unless_they_have_one(chosen: GateParams) -> None:
    spec = inject(USERS_OWN, chosen)["spec"]
    vllm, shipper = spec["containers"][0], spec["initContainers"][-1]
    assert vllm["livenessProbe"]["terminationGracePeriodSeconds"] == 30
    assert vllm["startupProbe"]["terminationGracePeriodSeconds"] == 90
    assert shipper["livenessProbe"]["terminationGracePeriodSeconds"] == 30


def test_without_a_gate_there_is_no_sidecar_hook_volume_or_mesh_annotation() -> None:
    result = inject(USERS_OWN, NO_GATE)
    assert [container["name"] for container in result["spec"]["initContainers"]] == ["download", "shipper"]
    assert "lifecycle" not in result["spec"]["containers"][0]
    assert result["spec"]["volumes"] == USERS_OWN["spec"]["volumes"]
    assert "9397" not in json.dumps(result)


@pytest.mark.parametrize("chosen", [PARAMS, NO_GATE], ids=["gate", "none"])
def test_the_grace_period_is_computed_when_unset(chosen: GateParams) -> None:
    assert inject(SMALLEST, chosen)["spec"]["terminationGracePeriodSeconds"] == 2 + 600 + 10 + 5


@pytest.mark.parametrize("grace", [0, 30, 3600])
def test_a_grace_period_that_is_set_stays(grace: int) -> None:
    template = {"spec": {"containers": [], "terminationGracePeriodSeconds": grace}}
    assert inject(template, PARAMS)["spec"]["terminationGracePeriodSeconds"] == grace


@pytest.mark.parametrize(("grace", "timeout"), [(3600, 600), (616, 600), (614, 599), (60, 45), (15, 0), (0, 0)])
def test_the_gate_answers_early_enough_for_the_shutdown_to_fit_into_the_grace_period(grace: int, timeout: int) -> None:
    template = {"spec": {"containers": [], "terminationGracePeriodSeconds": grace}}
    assert f"--timeout-seconds={timeout}" in gate_of(inject(template, PARAMS))["args"]


def test_a_newer_gate_replaces_the_older_one() -> None:
    result = inject(inject(USERS_OWN, PARAMS), params(image="newer"))
    assert gate_of(result)["image"] == "newer"
    assert [container["name"] for container in result["spec"]["initContainers"]].count(names.GATE_CONTAINER) == 1


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": "x"}, "spec must be an object"),
        ({"metadata": {"annotations": []}}, "annotations must be an object"),
        ({"metadata": {"finalizers": "x"}}, "finalizers must be a list"),
        ({"spec": {"containers": {"name": "vllm"}}}, "containers must be a list"),
        ({"spec": {"containers": ["vllm"]}}, "containers must be a list of objects"),
        ({"spec": {"containers": [{"name": "vllm", "lifecycle": "x"}]}}, "lifecycle must be an object"),
    ],
)
def test_a_template_of_another_shape_is_refused_by_the_name_of_the_field(template: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"template: {field}"):
        inject(template, PARAMS)


def test_what_injection_only_reads_is_left_for_the_api_server_to_refuse() -> None:
    template = {
        "spec": {"containers": [{"name": "a", "livenessProbe": "x"}], "terminationGracePeriodSeconds": "x"},
    }
    result = inject(template, PARAMS)
    assert result["spec"]["containers"][0]["livenessProbe"] == "x"
    assert result["spec"]["terminationGracePeriodSeconds"] == "x"
