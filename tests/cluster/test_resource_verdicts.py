"""A real API server and `validate` judge alike: both read the tables of tests/api/mutations.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.api.mutations import ACCEPTED, MINIMAL, MODE_CHANGES, REFUSED, RIGHT, Change, changed
from tests.cluster.clusters import Cluster

from tailrace.api.inferenceserver import InferenceServer
from tailrace.api.verdict import validate

pytestmark = pytest.mark.cluster

CRD = Path(__file__).parents[2] / "crds" / "inference.tailrace.dev_inferenceservers.yaml"
NAME = "inferenceservers.inference.tailrace.dev"


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=30s")
    return cluster


def refusal(cluster: Cluster, verb: str, document: dict[str, Any], *args: str) -> str:
    """Ask the API server what it has against the document; empty when it takes it."""
    result = cluster.kubectl(verb, *args, "-f", "-", input=json.dumps(document), check=False)
    assert bool(result.returncode) == bool(result.stderr), result
    return result.stderr


def served(cluster: Cluster, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
    assert refusal(cluster, "apply", document, "-n", namespace) == ""
    return cluster.get("isvr", document["metadata"]["name"], "-n", namespace)


def test_the_server_takes_the_definition_without_a_warning(installed: Cluster) -> None:
    conditions = {one["type"]: one["status"] for one in installed.get("crd", NAME)["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    said = installed.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", str(CRD))
    assert said.stderr == ""


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_the_server_refuses_what_validate_refuses(installed: Cluster, change: Change) -> None:
    said = refusal(installed, "create", change.document, "--dry-run=server")
    assert change.path in said


@pytest.mark.parametrize("change", ACCEPTED, ids=str)
def test_the_server_accepts_what_validate_accepts(installed: Cluster, change: Change) -> None:
    assert refusal(installed, "create", change.document, "--dry-run=server") == ""


@pytest.mark.parametrize(("before", "after"), MODE_CHANGES)
def test_the_server_refuses_another_way_to_find_pods(
    installed: Cluster, namespace: str, before: str, after: str
) -> None:
    served(installed, namespace, changed(RIGHT[before], "metadata/name", "one"))
    other = changed(RIGHT[after], "metadata/name", "one")
    assert "spec" in (said := refusal(installed, "replace", other, "-n", namespace))
    assert "can't change" in said


@pytest.mark.parametrize("base", RIGHT)
def test_the_server_fills_in_the_defaults_that_the_models_have(installed: Cluster, namespace: str, base: str) -> None:
    stored = served(installed, namespace, RIGHT[base])
    ours, theirs = validate(RIGHT[base]), validate(stored)
    assert isinstance(ours, InferenceServer)
    assert isinstance(theirs, InferenceServer)
    assert theirs.spec == ours.spec


def test_the_template_is_stored_as_it_was_written(installed: Cluster, namespace: str) -> None:
    stored = served(installed, namespace, RIGHT["template"])
    assert stored["spec"]["template"] == RIGHT["template"]["spec"]["template"]


def test_kubectl_scale_changes_the_replicas(installed: Cluster, namespace: str) -> None:
    served(installed, namespace, MINIMAL)
    installed.kubectl("scale", "isvr/small", "--replicas=5", "-n", namespace)
    assert installed.get("isvr", "small", "-n", namespace)["spec"]["replicas"] == 5


def test_kubectl_scale_of_pods_that_others_run_says_why_not(installed: Cluster, namespace: str) -> None:
    served(installed, namespace, RIGHT["selector"])
    result = installed.kubectl("scale", "isvr/adopted", "--replicas=5", "-n", namespace, check=False)
    assert "replicas works with template only" in result.stderr


STATUS = {
    "status": {
        "observedGeneration": 1,
        "ready": "2/3",
        "replicas": 3,
        "readyReplicas": 2,
        "drainingReplicas": 1,
        "inFlight": 17,
        "capacity": 64,
        "selector": "tailrace.dev/server=small",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-02T03:04:05.678Z",
                "reason": "EndpointsReady",
                "message": "2 of 3 endpoints take requests",
            }
        ],
        "endpoints": [{"address": "10.0.0.7:8000", "pod": "small-1", "node": "n", "gpuMemoryGB": 80, "state": "Ready"}],
        "drains": [
            {"pod": "small-0", "startedAt": "2026-01-02T03:04:05Z", "finished": 3, "seconds": 1.5, "reason": "rollout"}
        ],
    }
}


def test_kubectl_get_shows_the_status_in_columns(installed: Cluster, namespace: str) -> None:
    served(installed, namespace, MINIMAL)
    patch = json.dumps(STATUS)
    installed.kubectl("patch", "isvr/small", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    header, row = installed.kubectl("get", "inference", "-n", namespace).stdout.splitlines()
    assert header.split() == ["NAME", "MODEL", "READY", "IN-FLIGHT", "DRAINING", "AGE"]
    assert row.split()[:5] == ["small", "m", "2/3", "17", "1"]
    assert installed.kubectl("get", "all", "-n", namespace).stdout.count("inferenceserver.inference.tailrace.dev/") == 1
    scale = json.loads(installed.kubectl("get", "isvr/small", "-n", namespace, "--subresource=scale", "-ojson").stdout)
    assert scale["status"] == {"replicas": 3, "selector": "tailrace.dev/server=small"}


def test_a_status_that_the_server_stores_is_read_back(installed: Cluster, namespace: str) -> None:
    served(installed, namespace, MINIMAL)
    patch = json.dumps(STATUS)
    installed.kubectl("patch", "isvr/small", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    stored = validate(installed.get("isvr", "small", "-n", namespace))
    assert isinstance(stored, InferenceServer)
    assert stored.status.endpoints[0].gpu_memory_gb == 80
    assert stored.status.conditions[0].last_transition_time.microsecond == 678000
