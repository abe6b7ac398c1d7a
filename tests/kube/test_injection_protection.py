import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml

from tailrace.api import names
from tailrace.kube.injection import GateParams, inject, protection

PARAMS = GateParams(image="i", routers="r:1", server="s")
HOOK = {"httpGet": {"path": "/wait", "port": 9397}}
TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "vllm", "image": "v"}]}}


def params(**changes: int) -> GateParams:
    return replace(PARAMS, **changes)  # type: ignore[arg-type]


def reasons(pod: dict[str, Any], chosen: GateParams = PARAMS) -> list[str]:
    return [weakness.reason for weakness in protection(pod, chosen)]


def changed(**spec: object) -> dict[str, Any]:
    injected = inject(TEMPLATE, PARAMS)
    return injected | {"spec": injected["spec"] | spec}


def test_an_injected_template_is_protected() -> None:
    assert protection(inject(TEMPLATE, PARAMS), PARAMS) == []


def test_a_pod_is_read_as_a_template_is() -> None:
    pod = inject(TEMPLATE, PARAMS) | {"kind": "Pod", "status": {"phase": "Running"}}
    pod["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]["scheme"] = "HTTP"
    assert protection(pod, PARAMS) == []


def test_a_hook_of_its_own_is_a_weakness_that_names_the_container() -> None:
    own = {"name": "exporter", "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}}
    template = {"spec": {"containers": [*TEMPLATE["spec"]["containers"], own]}}
    (weakness,) = protection(inject(template, PARAMS), PARAMS)
    assert weakness.reason == "OwnPreStop"
    assert "exporter" in weakness.message


@pytest.mark.parametrize("get", [{"path": "/wait", "port": 80}, {"path": "/stop", "port": 9397}])
def test_a_hook_that_calls_something_else_is_one_of_its_own(get: dict[str, Any]) -> None:
    assert reasons(changed(containers=[{"name": "vllm", "lifecycle": {"preStop": {"httpGet": get}}}])) == ["OwnPreStop"]


def test_a_container_beside_a_gate_without_a_hook_is_a_weakness() -> None:
    assert reasons(changed(containers=[{"name": "vllm"}])) == ["HookMissing"]


def test_host_network_is_a_weakness() -> None:
    assert reasons(changed(hostNetwork=True)) == ["HostNetwork"]
    assert reasons(changed(hostNetwork=False)) == []


@pytest.mark.parametrize("proxy", ["istio-proxy", "linkerd-proxy"])
def test_a_mesh_proxy_is_a_weakness_unless_it_is_a_native_sidecar(proxy: str) -> None:
    held = {"name": "vllm", "lifecycle": {"preStop": HOOK}}
    assert reasons(changed(containers=[held, {"name": proxy}])) == ["MeshProxy"]
    gate = inject(TEMPLATE, PARAMS)["spec"]["initContainers"][0]
    assert reasons(changed(initContainers=[{"name": proxy, "restartPolicy": "Always"}, gate])) == []


@pytest.mark.parametrize(("grace", "expected"), [(616, ["GraceTooShort"]), (617, []), (None, ["GraceTooShort"])])
def test_a_grace_period_that_is_too_short_is_a_weakness(grace: int | None, expected: list[str]) -> None:
    assert reasons(changed(terminationGracePeriodSeconds=grace)) == expected


def test_the_message_on_the_grace_period_says_what_it_must_be() -> None:
    (weakness,) = protection(changed(terminationGracePeriodSeconds=30), PARAMS)
    assert "is 30" in weakness.message
    assert "needs 617" in weakness.message


@pytest.mark.parametrize(("total", "expected"), [(600, []), (601, ["RequestsOutliveDrain"])])
def test_requests_that_may_outlive_the_drain_are_a_weakness(total: int, expected: list[str]) -> None:
    assert reasons(changed(), params(total_timeout=total)) == expected


def test_no_gate_by_choice_is_a_weakness_and_the_only_one_about_the_gate() -> None:
    chosen = params(gate=False)
    assert reasons(inject(TEMPLATE, chosen), chosen) == ["GateDisabled"]
    assert reasons({"spec": {"containers": [{"name": "istio-proxy"}], "hostNetwork": True}}, chosen) == [
        "GraceTooShort",
        "GateDisabled",
    ]


@pytest.mark.parametrize(
    "pod", [{}, {"spec": None}, TEMPLATE, {"spec": {"initContainers": [{"name": names.GATE_CONTAINER}]}}]
)
def test_a_pod_without_a_native_sidecar_gate_is_not_protected(pod: dict[str, Any]) -> None:
    assert "GateMissing" in reasons(pod)


def test_the_lines_to_add_protect_an_adopted_pod() -> None:
    adopted = {"spec": {"containers": [{"name": "vllm", "image": "v"}, {"name": "exporter", "image": "e"}]}}
    (missing,) = [weakness for weakness in protection(adopted, PARAMS) if weakness.reason == "GateMissing"]
    lines = yaml.safe_load(missing.message.partition("template:\n")[2])
    spec = lines["spec"]
    spec["containers"] = [
        ours | theirs for ours, theirs in zip(adopted["spec"]["containers"], spec["containers"], strict=True)
    ]
    assert protection(lines, PARAMS) == []
    assert spec == {key: value for key, value in inject(adopted, PARAMS)["spec"].items() if key in spec}


def test_injection_needs_no_kubernetes_client() -> None:
    script = "import sys, tailrace.kube.injection; print({'kubernetes', 'kopf', 'pydantic'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"
