"""What a pod is as an endpoint: ready, deleted, ended, cordoned."""

from typing import Any

import pytest
from tests.kube.documents import model, pod

from tailrace.core.model import Deletion, DrainReason, DrainSpec
from tailrace.kube.podstate import Node, Owner, lost_owner, node_facts, observe, owner_of

OWNER = Owner("ns/one", port=8000, capacity=4, drain=DrainSpec(600, 2, 10))
DELETED_AT = "2026-01-01T00:11:00Z"
MIDNIGHT = 1767225600.0


def test_a_ready_pod_is_a_ready_endpoint_at_its_address() -> None:
    found = observe(pod(version=7), owner=OWNER)
    assert (found.ready, found.address, found.capacity, found.version) == (True, "10.0.0.1:8000", 4, 7)
    assert (found.server, found.name, found.node, found.incarnation) == ("ns/one", "a", "n1", "c://1")
    assert found.created_at == MIDNIGHT


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert observe(pod(status={"podIP": "fd00::1"}), owner=OWNER).address == "[fd00::1]:8000"


WAITING = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]}, "ContainersNotReady"),
        ({"conditions": []}, "is not ready"),
        ({"podIP": ""}, "has no address yet"),
        ({"podIP": "", "containerStatuses": [WAITING]}, "main: ImagePullBackOff: no such image"),
        ({"podIP": "", "conditions": [UNSCHEDULABLE]}, "Unschedulable: 0/1 nodes"),
        ({"phase": "Failed"}, "has ended: Failed"),
    ],
)
def test_a_pod_that_is_not_ready_says_why(status: dict[str, Any], reason: str) -> None:
    found = observe(pod(status=status), owner=OWNER)
    assert (found.ready, found.reason) == (False, reason)


@pytest.mark.parametrize(
    ("grace", "drain", "seconds"),
    [
        (660, DrainSpec(600, 2, 10), 600),
        (30, DrainSpec(600, 2, 10), 15),
        (10, DrainSpec(600, 2, 10), 0),
        (0, DrainSpec(600, 2, 10), 0),
        (660, DrainSpec(60, 2, 10), 60),
    ],
)
def test_the_deadline_leaves_the_engine_its_shutdown_and_is_never_before_the_begin(
    grace: int, drain: DrainSpec, seconds: float
) -> None:
    deleted = pod(deletionTimestamp=DELETED_AT, deletionGracePeriodSeconds=grace)
    found = observe(deleted, owner=Owner("ns/one", drain=drain)).deletion
    began = MIDNIGHT + 660 - grace
    assert found == Deletion(began, began + seconds, DrainReason.DELETE)


def test_the_deletion_first_seen_stands_when_the_grace_period_shrinks() -> None:
    first = Deletion(1.0, 2.0, DrainReason.ROLLOUT)
    last = pod(deletionTimestamp=DELETED_AT, deletionGracePeriodSeconds=0)
    assert observe(last, owner=OWNER, before=first).deletion == first


def test_the_pods_own_annotations_say_how_it_drains() -> None:
    annotated = pod(annotations={"tailrace.dev/drain-timeout-seconds": "30", "tailrace.dev/drain-settle-seconds": "x"})
    annotated["metadata"]["annotations"]["tailrace.dev/drain-shutdown-seconds"] = "1" * 5000
    assert observe(annotated, owner=OWNER).drain == DrainSpec(30.0, 2.0, 10.0)


def test_a_disrupted_pod_is_evicted_whatever_else_looks_likely() -> None:
    evicted = pod(
        deletionTimestamp=DELETED_AT,
        deletionGracePeriodSeconds=30,
        status={"conditions": [{"type": "DisruptionTarget", "status": "True"}]},
    )
    found = observe(evicted, owner=OWNER, why=DrainReason.ROLLOUT).deletion
    assert found is not None
    assert found.reason is DrainReason.EVICTION


TERMINATED = {"name": "main", "containerID": "c://1", "state": {"terminated": {"exitCode": 0}}}
DELETING: dict[str, Any] = {"deletionTimestamp": DELETED_AT, "deletionGracePeriodSeconds": 30}


@pytest.mark.parametrize(
    ("document", "node", "ended"),
    [
        (pod(), Node(), False),
        (pod(), None, False),
        (pod(**DELETING), Node(), False),
        (pod(status={"phase": "Succeeded"}), Node(), True),
        (pod(**DELETING, status={"containerStatuses": [TERMINATED]}), Node(), True),
        (pod(status={"containerStatuses": [TERMINATED]}), Node(), False),
        (pod(**DELETING, status={"containerStatuses": []}), Node(), False),
        (pod(), Node(lost=True), True),
        (pod(node="", **DELETING), None, True),
        (pod(node=""), None, False),
    ],
)
def test_ended_means_that_nothing_can_run_there(document: dict[str, Any], node: Node | None, ended: bool) -> None:
    assert observe(document, owner=OWNER, node=node).ended is ended


def test_one_container_that_still_runs_keeps_the_pod_from_having_ended() -> None:
    half = pod(**DELETING, status={"containerStatuses": [TERMINATED]})
    half["spec"]["containers"].append({"name": "other"})
    assert not observe(half, owner=OWNER).ended


def test_a_node_out_of_service_is_lost() -> None:
    tainted = {"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service"}]}}
    assert node_facts(tainted).lost
    assert not node_facts({"metadata": {"name": "n1"}, "spec": {}}).lost


@pytest.mark.parametrize(
    ("text", "cordon"), [("12", 12), ("0", 0), ("true", 1), ("", 1), ("9" * 5000, 1), (None, None)]
)
def test_a_cordon_set_by_hand_has_the_first_generation(text: str | None, cordon: int | None) -> None:
    annotations = {} if text is None else {"tailrace.dev/draining": text}
    assert observe(pod(annotations=annotations), owner=OWNER).cordon == cordon


def test_the_mark_of_a_gates_call_is_read_from_the_pod() -> None:
    assert observe(pod(annotations={"tailrace.dev/gate-drain": "c://1"}), owner=OWNER).gate_mark == "c://1"
    assert observe(pod(), owner=OWNER).gate_mark is None


def test_gpu_memory_of_the_server_goes_before_that_of_the_node() -> None:
    assert observe(pod(), owner=Owner("ns/one", gpu_memory_gb=40), gpu_memory_gb=80).gpu_memory_gb == 40
    assert observe(pod(), owner=Owner("ns/one"), gpu_memory_gb=80).gpu_memory_gb == 80


def test_the_speed_of_the_server_goes_before_that_of_the_node_and_the_weight_is_the_server_s() -> None:
    assert observe(pod(), owner=Owner("ns/one", gpu_tflops=65, weight=3), gpu_tflops=312).gpu_tflops == 65
    assert observe(pod(), owner=Owner("ns/one"), gpu_tflops=312).gpu_tflops == 312
    assert observe(pod(), owner=owner_of(model(weight=3))).weight == 3
    assert owner_of(model(gpuTFLOPS=65)).gpu_tflops == 65


def test_an_owner_is_read_from_the_server_or_guessed_from_the_pod() -> None:
    drain = {"timeoutSeconds": 30, "settleSeconds": 1, "shutdownSeconds": 5}
    assert owner_of(model(port=9000, capacity=7, drain=drain)) == Owner("ns/one", 9000, 7, None, DrainSpec(30, 1, 5))
    assert lost_owner(pod(annotations={"tailrace.dev/port": "9000"})) == Owner("ns/one", 9000, 1)


def test_a_pod_is_in_the_zone_of_its_node() -> None:
    node = Node({"topology.kubernetes.io/zone": "eu-1a"})
    assert observe(pod(), owner=OWNER, node=node).zone == "eu-1a"
    assert observe(pod(), owner=OWNER, node=Node()).zone == observe(pod(), owner=OWNER).zone == ""


def test_a_pod_is_a_backup_when_its_server_says_so() -> None:
    assert observe(pod(), owner=Owner("ns/one", backup=True)).backup
    assert not observe(pod(), owner=OWNER).backup
