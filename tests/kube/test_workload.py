"""What the Deployment of an InferenceServer should be, and what changes it."""

from typing import Any

from tests.kube.documents import Document, model

from tailrace.kube import workload
from tailrace.kube.workload import Installation

OLD, NEW = Installation("gate:1", "routers:9090"), Installation("gate:2", "elsewhere:9090")
TEMPLATE: Document = {"spec": {"containers": [{"name": "main", "image": "x"}]}}


def stored(installation: Installation = OLD, template: Document = TEMPLATE, **spec: Any) -> Document:  # noqa: ANN401
    """Return the Deployment as the API server would keep it."""
    server = model(**spec)
    made = workload.deployment(server, template, workload.gate_params(server, installation))
    made["metadata"] |= {"uid": "uid-d", "generation": 1}
    made["metadata"]["labels"][workload.LABEL_LIVE_HASH] = workload.live_hash(made["spec"]["template"])
    return made


def changes(
    live: Document,
    installation: Installation = OLD,
    template: Document = TEMPLATE,
    **spec: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return what is to be changed, by path."""
    server = model(**spec)
    params = workload.gate_params(server, installation)
    return {operation["path"]: operation["value"] for operation in workload.changes(live, server, template, params)}


def test_the_deployment_belongs_to_its_server_and_selects_by_our_label() -> None:
    made = stored(replicas=3, rollout={"maxSurge": 0, "maxUnavailable": "50%", "minReadySeconds": 5})
    assert made["spec"]["selector"] == {"matchLabels": {"tailrace.dev/server": "one"}}
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "50%"}
    assert (made["spec"]["replicas"], made["spec"]["minReadySeconds"]) == (3, 5)
    assert workload.controlled(made, model())
    assert "tailrace.dev/drain" in made["spec"]["template"]["metadata"]["finalizers"]


def test_nothing_changes_when_nothing_was_said() -> None:
    assert changes(stored()) == {}


def test_an_absent_min_ready_is_zero() -> None:
    live = stored()
    del live["spec"]["minReadySeconds"]
    assert changes(live) == {}


def test_a_new_replica_count_leaves_the_template_alone() -> None:
    assert changes(stored(replicas=3), replicas=1) == {"/spec/replicas": 1}


def test_another_installation_changes_nothing() -> None:
    assert changes(stored(OLD), NEW) == {}


def test_a_new_template_brings_the_gate_of_the_present_installation() -> None:
    other = {"spec": {"containers": [{"name": "main", "image": "y"}]}}
    found = changes(stored(OLD), NEW, other)
    assert found["/spec/template"]["spec"]["containers"][0]["image"] == "y"
    assert found["/metadata/annotations/tailrace.dev~1gate-image"] == "gate:2"
    assert "/metadata/labels/tailrace.dev~1template-hash" in found


def test_other_words_about_the_drain_change_the_template_other_timeouts_do_not() -> None:
    assert "/spec/template" in changes(stored(), drain={"timeoutSeconds": 30})
    assert changes(stored(), timeouts={"totalSeconds": 30}) == {}


def test_a_restart_by_hand_is_kept_when_the_template_changes() -> None:
    live = stored()
    live["spec"]["template"]["metadata"]["annotations"][workload.ANNOTATION_RESTARTED] = "then"
    found = changes(live, template={"spec": {"containers": [{"name": "main", "image": "y"}]}})
    assert found["/spec/template"]["metadata"]["annotations"][workload.ANNOTATION_RESTARTED] == "then"


def test_a_restart_is_no_drift_and_a_changed_image_is() -> None:
    live = stored()
    live["spec"]["template"]["metadata"]["annotations"][workload.ANNOTATION_RESTARTED] = "then"
    assert not workload.drifted(live)
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "by-hand"
    assert workload.drifted(live)


def test_annotations_of_an_older_revision_do_not_bring_the_template_back() -> None:
    """An undo restores the Deployment's annotations; what was applied must not be read from them."""
    live = stored()
    live["metadata"]["annotations"] = {workload.ANNOTATION_GATE_IMAGE: "gate:0"}
    assert "/spec/template" not in changes(live)


def test_the_guard_names_the_very_deployment_that_was_seen() -> None:
    tests = workload.guarded(stored(), [])
    assert [(test["op"], test["path"], test["value"]) for test in tests] == [
        ("test", "/metadata/uid", "uid-d"),
        ("test", "/metadata/generation", 1),
    ]
