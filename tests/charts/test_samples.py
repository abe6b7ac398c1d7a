"""The samples are right: by our own rules, by a real API server, and in what a drain of their pods is worth."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.charts.helm import objects
from tests.cluster.clusters import Cluster
from tests.repo.tree import ROOT

from tailrace.api import names
from tailrace.api.inferenceserver import InferenceServer
from tailrace.api.verdict import validate
from tailrace.engines.families import FAMILIES
from tailrace.kube.injection import gate_container, inject, protection
from tailrace.kube.workload import Installation, gate_params
from tailrace.settings import Settings

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
ENGINES = {"vllm", "sglang", "tgi", "llamacpp", "triton", "ollama"}
SETTINGS = Settings()
INSTALLATION = Installation(gate_image=SETTINGS.gate_image, gate_routers=SETTINGS.gate_routers)


def documents(file: Path) -> list[dict[str, Any]]:
    return objects(file.read_text())


def judged(document: dict[str, Any]) -> InferenceServer:
    found = validate(document)
    assert isinstance(found, InferenceServer), found
    return found


def of_samples(mode: str) -> list[Any]:
    """Return the InferenceServers that find their pods in this way, as parameters named after them."""
    found = [one for file in SAMPLES for one in documents(file) if one["kind"] == names.KIND and mode in one["spec"]]
    return [pytest.param(one, id=one["metadata"]["name"]) for one in found]


def argument(container: dict[str, Any], name: str) -> str | None:
    """Return the value of a `--name=value` argument of the container."""
    found = [one.partition("=")[2] for one in container.get("args", []) if one.startswith(f"--{name}=")]
    return found[0] if found else None


def test_there_is_a_sample_of_every_engine_that_people_run() -> None:
    assert {file.stem for file in SAMPLES} >= ENGINES
    engines = {
        document["spec"]["engine"] for name in ENGINES for document in documents(SAMPLES[0].with_name(f"{name}.yaml"))
    }
    assert engines == FAMILIES.keys() - {"trtllm", "openai"}


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_a_sample_keeps_our_rules(file: Path) -> None:
    servers = [judged(one) for one in documents(file) if one["kind"] == names.KIND]
    assert servers


@pytest.mark.parametrize("document", of_samples("template"))
def test_a_drain_of_a_samples_pods_is_protected(document: dict[str, Any]) -> None:
    params = gate_params(judged(document), INSTALLATION)
    assert protection(inject(document["spec"]["template"], params), params) == []


def test_the_adopted_deployment_has_the_gate_that_tailrace_would_add() -> None:
    deployment, document = documents(ROOT / "manifests" / "samples" / "adopt.yaml")
    params = gate_params(judged(document), INSTALLATION)
    template = deployment["spec"]["template"]
    assert protection(template, params) == []
    assert document["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (gate,) = template["spec"]["initContainers"]
    ours = gate_container(params, params.grace)
    assert {key: value for key, value in gate.items() if key not in {"args", "ports"}}.items() <= ours.items()
    assert set(gate["args"]) <= set(ours["args"])


@pytest.mark.parametrize("document", of_samples("template"))
def test_a_sample_probes_the_port_that_is_routed_to(document: dict[str, Any]) -> None:
    for container in document["spec"]["template"]["spec"]["containers"]:
        (port,) = container["ports"]
        assert port["containerPort"] == document["spec"].get("port", 8000)
        assert argument(container, "port") in (None, str(port["containerPort"]))
        probes = [container[key] for key in ("startupProbe", "readinessProbe", "livenessProbe") if key in container]
        assert {probe["httpGet"]["port"] for probe in probes} <= {port.get("name"), port["containerPort"]}


LIMITS = ("max-num-seqs", "max-running-requests", "parallel")


@pytest.mark.parametrize("document", of_samples("template"))
def test_the_capacity_of_a_sample_is_what_its_engine_runs_at_once(document: dict[str, Any]) -> None:
    (container,) = document["spec"]["template"]["spec"]["containers"]
    limits = {value for name in LIMITS if (value := argument(container, name))}
    assert limits <= {str(document["spec"].get("capacity", 32))}


@pytest.mark.parametrize("document", of_samples("template"))
def test_an_engine_that_finishes_by_itself_is_done_before_it_is_killed(document: dict[str, Any]) -> None:
    (container,) = document["spec"]["template"]["spec"]["containers"]
    own = argument(container, "shutdown-timeout")
    assert own is None or int(own) < judged(document).spec.drain.shutdown_seconds


def test_the_unequal_pool_is_one_pool() -> None:
    servers = [judged(one) for one in documents(ROOT / "manifests" / "samples" / "unequal-pool.yaml")]
    assert len(servers) == 2
    assert len({model.name for server in servers for model in server.spec.models}) == 1


@pytest.mark.cluster
@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_the_server_takes_a_sample(cluster: Cluster, namespace: str, file: Path) -> None:
    crd = ROOT / "crds" / "inference.tailrace.dev_inferenceservers.yaml"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{names.CRD_NAME}", "--timeout=30s")
    made = documents(file)
    made += [
        deployment(judged(one), one["spec"]["template"])
        for one in made
        if "template" in one.get("spec", {}) and one["kind"] == names.KIND
    ]
    for one in made:
        said = cluster.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-", input=json.dumps(one)
        )
        assert said.stderr == ""


def deployment(server: InferenceServer, template: dict[str, Any]) -> dict[str, Any]:
    """Return the Deployment whose pods would run: the rules leave its template to the API server."""
    labels = {names.LABEL_SERVER: server.metadata.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": server.metadata.name},
        "spec": {"selector": {"matchLabels": labels}, "template": inject(template, gate_params(server, INSTALLATION))},
    }
