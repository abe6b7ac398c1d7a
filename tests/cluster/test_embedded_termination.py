"""The stand-in kubelet ends containers as the real one was measured to: hook, SIGTERM, SIGKILL, sidecars last."""

import time
from typing import Any

import pytest
from tests.cluster.pods import Pod, Pods, server_container, shell_container

pytestmark = pytest.mark.cluster

GATE_PORT = 9000
GATED = {"preStop": {"httpGet": {"path": "/wait", "port": GATE_PORT}}}


def gate(name: str = "gate", port: int = GATE_PORT) -> dict[str, Any]:
    return server_container(name, port, restartPolicy="Always")


def gated_pod(pods: Pods, name: str = "one", **spec: object) -> Pod:
    main = server_container(lifecycle=GATED)
    pods.create(name, initContainers=[gate()], containers=[main], **{"terminationGracePeriodSeconds": 30} | spec)
    return pods.ready(name)


def ended_pod(pod: Pod) -> bool:
    return pod["status"]["phase"] in {"Succeeded", "Failed"}


def test_a_blocking_hook_holds_sigterm_back_until_it_answers(pods: Pods) -> None:
    gated_pod(pods)
    pods.delete("one", wait=False)
    pods.wait_said("one", "hook-started", "gate")
    time.sleep(1.5)
    assert pods.said("one", "sigterm") == []
    pods.call("one", "/release", GATE_PORT)
    pods.gone("one")
    assert pods.said("one", "sigterm")[0] >= pods.said("one", "hook-answered", "gate")[0]


def test_a_sidecar_gets_sigterm_only_after_the_main_container_has_ended(pods: Pods) -> None:
    gated_pod(pods)
    pods.call("one", "/set?term=ignore")
    pods.delete("one", wait=False)
    pods.wait_said("one", "hook-started", "gate")
    pods.call("one", "/release", GATE_PORT)
    pods.wait_said("one", "sigterm")
    time.sleep(1)
    assert pods.said("one", "sigterm", "gate") == []
    pods.call("one", "/exit?code=0")
    pods.gone("one")
    assert len(pods.said("one", "sigterm", "gate")) == 1


def test_sidecars_end_in_the_reverse_order_of_their_start(pods: Pods) -> None:
    sidecars = [gate("first", 9001), gate("second", 9002)]
    pods.create("one", initContainers=sidecars, containers=[server_container()])
    pods.ready("one")
    pods.delete("one")
    ends = [pods.said("one", "sigterm", name)[0] for name in ("main", "second", "first")]
    assert ends == sorted(ends)


def test_a_hook_that_nobody_answers_is_followed_by_sigterm_at_once(pods: Pods) -> None:
    pods.server("one", lifecycle={"preStop": {"httpGet": {"port": 9999}}})
    pods.ready("one")
    asked = time.time()
    pods.delete("one")
    assert pods.said("one", "sigterm")[0] - asked < 5


def test_a_finalizer_keeps_the_object_but_not_the_process(pods: Pods) -> None:
    metadata = {"finalizers": ["tailrace.dev/test"]}
    pods.create("one", metadata, containers=[server_container()])
    pods.ready("one")
    pods.delete("one", wait=False)
    pod = pods.wait("one", ended_pod)
    assert pod["status"]["phase"] == "Succeeded"
    assert pods.state(pod)["terminated"]["exitCode"] == 0
    assert len(pods.said("one", "sigterm")) == 1
    pods.wait("one", lambda pod: pod["metadata"]["deletionGracePeriodSeconds"] == 0)
    pods.patch("one", {"metadata": {"finalizers": None}})
    pods.gone("one")


def test_a_process_that_outstays_the_grace_period_is_killed(pods: Pods) -> None:
    pods.create(
        "one", {"finalizers": ["tailrace.dev/test"]}, containers=[server_container()], terminationGracePeriodSeconds=3
    )
    pods.ready("one")
    pods.call("one", "/set?term=ignore")
    pods.delete("one", wait=False)
    pod = pods.wait("one", ended_pod)
    assert pods.state(pod)["terminated"]["exitCode"] == 137
    assert pod["status"]["phase"] == "Failed"
    pods.patch("one", {"metadata": {"finalizers": None}})


def test_the_hook_uses_the_grace_period_up_but_for_two_seconds_of_sigterm(pods: Pods) -> None:
    gated_pod(pods, terminationGracePeriodSeconds=3)
    pods.call("one", "/set?term=ignore")
    asked = time.time()
    pods.delete("one")
    assert pods.said("one", "sigterm")[0] - asked >= 2.9
    assert time.time() - asked >= 4.9


def test_a_second_delete_with_a_shorter_grace_does_not_interrupt_a_running_hook(pods: Pods) -> None:
    pods.server("one", grace=30, lifecycle={"preStop": {"sleep": {"seconds": 5}}})
    pods.ready("one")
    asked = time.time()
    pods.delete("one", wait=False)
    time.sleep(1)
    pods.delete("one", "--grace-period=1", wait=False)
    pods.gone("one")
    assert pods.said("one", "sigterm")[0] - asked >= 4.9


def test_a_forced_delete_kills_the_processes_at_once(pods: Pods) -> None:
    gated_pod(pods)
    pods.delete("one", "--grace-period=0", "--force", wait=False)
    pods.gone("one")
    time.sleep(1)
    assert pods.said("one", "sigterm") == []
    assert pods.processes("one") == []


def test_a_failed_liveness_probe_runs_the_hook_and_restarts_the_container(pods: Pods) -> None:
    probe = {"httpGet": {"path": "/live", "port": 8000}, "periodSeconds": 1, "failureThreshold": 1}
    main = server_container(lifecycle=GATED, livenessProbe=probe)
    pods.create("one", initContainers=[gate()], containers=[main])
    address = pods.ready("one")["status"]["podIP"]
    pods.call("one", "/set?live=no")
    pods.wait_said("one", "hook-started", "gate")
    assert pods.said("one", "sigterm") == []
    pods.call("one", "/release", GATE_PORT)
    pod = pods.wait("one", lambda pod: pods.container(pod)["restartCount"] == 1 and "running" in pods.state(pod))
    assert pod["status"]["podIP"] == address
    assert len(pods.said("one", "sigterm")) == 1
    assert pods.container(pod, "gate")["restartCount"] == 0


def test_the_grace_period_of_a_probe_is_that_of_its_kills(pods: Pods) -> None:
    probe = {"httpGet": {"path": "/live", "port": 8000}, "periodSeconds": 1, "failureThreshold": 1}
    pods.server("one", grace=60, livenessProbe=probe | {"terminationGracePeriodSeconds": 2})
    pods.ready("one")
    pods.call("one", "/set?term=ignore")
    pods.call("one", "/set?live=no")
    pod = pods.wait("one", lambda pod: pods.container(pod)["restartCount"] == 1)
    assert pods.container(pod)["lastState"]["terminated"]["exitCode"] == 137


def test_an_eviction_ends_a_pod_like_any_delete(pods: Pods) -> None:
    gated_pod(pods)
    pods.evict("one")
    pods.wait_said("one", "hook-started", "gate")
    assert pods.get("one")["metadata"]["deletionTimestamp"]
    pods.call("one", "/release", GATE_PORT)
    pods.gone("one")
    assert len(pods.said("one", "sigterm")) == 1


def test_a_sidecar_that_dies_while_its_pod_ends_is_not_started_again(pods: Pods) -> None:
    gated_pod(pods)
    pods.delete("one", wait=False)
    pods.wait_said("one", "hook-started", "gate")
    pods.call("one", "/exit?code=1", GATE_PORT)
    pods.gone("one")
    assert len(pods.said("one", "started", "gate")) == 1
    assert len(pods.said("one", "sigterm")) == 1


def test_a_job_ends_when_its_main_container_has_and_its_sidecar_does_not_hold_it(pods: Pods) -> None:
    main = shell_container("main", "true")
    pods.create("one", initContainers=[gate()], containers=[main], restartPolicy="Never")
    pod = pods.wait("one", ended_pod)
    assert pod["status"]["phase"] == "Succeeded"
    assert len(pods.said("one", "sigterm", "gate")) == 1
