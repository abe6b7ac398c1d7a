import pytest
from tests.kube.documents import pod, server

from tailrace.api.gpu import gpus_asked
from tailrace.kube import objects
from tailrace.kube.client import Document, Resource
from tailrace.kube.injection import GateParams, inject, protection
from tailrace.kube.podstate import Owner, observe, unready_reason
from tailrace.kube.trim import TRIMS
from tailrace.kube.view import KINDS

PARAMS = GateParams(image="i", routers="r:1", server="s")
OWN_HOOK = {"name": "exporter", "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}}
NODE: Document = {"metadata": {"name": "n", "uid": "n", "labels": {"a": "b"}}, "spec": {"taints": [{"key": "k"}]}}
EXAMPLES = {objects.PODS: pod("a"), objects.SERVERS: server(), objects.NODES: NODE}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_to_trim_twice_changes_nothing(kind: Resource) -> None:
    once = TRIMS[kind](EXAMPLES.get(kind, server()))
    assert TRIMS[kind](once) == once


def test_what_nobody_reads_is_left_out_of_a_pod() -> None:
    large = pod("a", managedFields=[{"manager": "kubelet"}], annotations={"example.com/large": "x" * 1000})
    large["spec"]["containers"] = [{"name": "main", "env": [{"name": "A", "value": "b"}], "resources": {}}]
    large["status"]["conditions"] = [
        {"type": "Initialized", "status": "True"},
        {"type": "Ready", "status": "False", "reason": "Slow", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]
    kept = TRIMS[objects.PODS](large)
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {}
    assert kept["spec"]["containers"] == [{"name": "main", "resources": {}}]
    assert kept["status"]["conditions"] == [{"type": "Ready", "status": "False", "reason": "Slow"}]


def test_a_trimmed_pod_tells_the_same_endpoint() -> None:
    """Every field that an endpoint is made of, in a pod where all of them matter."""
    whole = pod(
        "a",
        deletionTimestamp="2026-01-01T00:01:00Z",
        deletionGracePeriodSeconds=30,
        annotations={"tailrace.dev/draining": "3", "tailrace.dev/gate-mark": "c://1"},
    )
    whole["status"] |= {
        "conditions": [{"type": "DisruptionTarget", "status": "True"}],
        "containerStatuses": [{"name": "main", "containerID": "c://1", "state": {"terminated": {"exitCode": 0}}}],
    }
    assert observe(TRIMS[objects.PODS](whole), owner=Owner("ns/one")) == observe(whole, owner=Owner("ns/one"))


@pytest.mark.parametrize("condition", ["Ready", "PodScheduled"])
def test_a_trimmed_pod_tells_why_it_is_not_ready(condition: str) -> None:
    told = {"type": condition, "status": "False", "reason": "Why", "message": "because"}
    whole = pod("a", status={"conditions": [told]})
    assert unready_reason(TRIMS[objects.PODS](whole)) == unready_reason(whole) == "Why: because"


def test_a_trimmed_pod_tells_which_of_its_containers_waits() -> None:
    waits = [{"name": "load", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    whole = pod("a", status={"initContainerStatuses": waits, "conditions": [], "podIP": ""})
    assert unready_reason(TRIMS[objects.PODS](whole)) == unready_reason(whole) == "load: ImagePullBackOff"


@pytest.mark.parametrize("claims", [[], [{"name": "gpu"}]])
def test_a_trimmed_pod_asks_for_the_same_gpus(claims: list[Document]) -> None:
    whole = pod("a")
    whole["spec"]["resourceClaims"] = claims
    whole["spec"]["initContainers"] = [
        {"name": "sidecar", "restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    ]
    assert gpus_asked(TRIMS[objects.PODS](whole)["spec"]) == gpus_asked(whole["spec"])


@pytest.mark.parametrize("change", [{}, {"hostNetwork": True}, {"terminationGracePeriodSeconds": 5}])
def test_a_trimmed_pod_is_as_well_protected(change: Document) -> None:
    template = inject({"spec": {"containers": [{"name": "main"}, OWN_HOOK]}}, PARAMS)
    whole = pod("a") | {"spec": template["spec"] | change}
    found = protection(whole, PARAMS)
    assert "OwnPreStop" in {weakness.reason for weakness in found}
    assert protection(TRIMS[objects.PODS](whole), PARAMS) == found
