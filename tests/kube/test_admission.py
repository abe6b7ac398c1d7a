"""What becomes of a pod that is being created: those that an InferenceServer selects get the drain, others nothing."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.kube.apiserver import merge
from tests.kube.documents import Document, server, understood

from tailrace.api import names
from tailrace.kube import membership, objects, workload
from tailrace.kube.admission import UNTOUCHED, Verdict, judge
from tailrace.kube.injection import inject, protection
from tailrace.kube.servers import Server
from tailrace.kube.webhook import Webhook
from tailrace.kube.workload import Installation

GATES = Installation("tailrace:1", "routers:9090")
SELECTING = {"matchLabels": {"app": "llm"}}


def one(name: str = "one", **spec: Any) -> Server:  # noqa: ANN401
    return understood(server(name, selector=SELECTING, **spec))


def created(**spec: Any) -> Document:  # noqa: ANN401
    """Return a pod as the API server shows it to a webhook: without a name, and with its defaults."""
    meta = {"generateName": "llm-", "namespace": "ns", "labels": {"app": "llm"}, "finalizers": ["example.com/theirs"]}
    told = {"terminationGracePeriodSeconds": 30, "containers": [{"name": "main", "image": "vllm"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": told | spec}


def judged(pod: Document, *servers: Server, namespace: str = "ns") -> Verdict:
    return judge(pod, namespace, servers or (one(),), GATES)


def admitted(pod: Document, *servers: Server) -> Document:
    """Return the pod as the API server would go on with it."""
    after = deepcopy(pod)
    merge(after, deepcopy(judged(pod, *servers).patch))
    return after


def test_a_selected_pod_gets_what_the_pods_of_a_template_get() -> None:
    after, params = admitted(created()), workload.gate_params(one().model, GATES)
    template = created()
    del template["spec"]["terminationGracePeriodSeconds"]
    same = inject(template, params)
    same["metadata"]["annotations"][membership.ANNOTATION_ADOPTED] = "true"
    assert after == same
    assert protection(after, params) == []
    assert judged(created()).warnings == ()
    assert after["metadata"]["finalizers"] == ["example.com/theirs", names.FINALIZER]


def test_adoption_finds_nothing_left_to_do_and_takes_off_what_was_put_on() -> None:
    after = admitted(created())
    after["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    assert objects.server_key(after) == "ns/one"
    assert membership.belongs(after)
    entered, before = deepcopy(after), deepcopy(after)
    merge(entered, membership.entry(after, one().model))
    assert entered == before
    left = deepcopy(after)
    merge(left, membership.exit_(after))
    assert not [key for key in {**objects.labels(left), **objects.annotations(left)} if key.startswith(names.PREFIX)]


def test_asked_again_it_changes_nothing_but_what_came_between() -> None:
    after = admitted(created())
    assert judged(after) == UNTOUCHED
    after["spec"]["containers"].append({"name": "late", "image": "added by another webhook"})
    again = admitted(after)
    assert [("preStop" in container["lifecycle"]) for container in again["spec"]["containers"]] == [True, True]


@pytest.mark.parametrize(
    ("why", "pod", "servers"),
    [
        ("other labels", created() | {"metadata": {"labels": {"app": "web"}}}, [one()]),
        ("no labels at all", created() | {"metadata": {}}, [one()]),
        ("pods of a template", created(), [understood(server("one"))]),
        ("a server that is being deleted", created(), [understood(server("one", selector=SELECTING))]),
        ("another server's", created() | {"metadata": {"labels": {"app": "llm", names.LABEL_SERVER: "x"}}}, [one()]),
        ("no server", created(), []),
    ],
)
def test_a_pod_that_nobody_selects_is_never_touched(why: str, pod: Document, servers: list[Server]) -> None:
    if "deleted" in why:
        servers[0].document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert judge(pod, "ns", servers, GATES) == UNTOUCHED


def test_a_pod_of_another_namespace_is_never_touched() -> None:
    assert judged(created(), namespace="elsewhere") == UNTOUCHED


def test_a_pod_with_a_gate_of_its_own_is_left_alone() -> None:
    gated = created(initContainers=[{"name": names.GATE_CONTAINER, "restartPolicy": "Always", "args": ["theirs"]}])
    assert judged(gated) == UNTOUCHED


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"hostNetwork": True}, "gets no drain gate: hostNetwork is true"),
        (
            {"containers": [{"name": "main", "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}]},
            "gets no drain gate: Container main has a preStop hook of its own",
        ),
    ],
)
def test_a_pod_that_a_gate_would_not_protect_is_let_through_with_the_reason(spec: Document, said: str) -> None:
    verdict = judged(created(**spec))
    assert verdict.patch == {}
    assert [said in warning for warning in verdict.warnings] == [True]


def test_a_grace_period_that_somebody_asked_for_stays_and_is_told_when_it_is_too_short() -> None:
    verdict = judged(created(terminationGracePeriodSeconds=60))
    assert "terminationGracePeriodSeconds" not in verdict.patch["spec"]
    assert "terminationGracePeriodSeconds is 60, a whole drain needs 617" in verdict.warnings[0]
    assert "--timeout-seconds=45" in verdict.patch["spec"]["initContainers"][0]["args"]


def test_without_a_gate_on_request_there_is_still_the_finalizer_from_the_first_moment() -> None:
    verdict = judged(created(), one(drain={"gate": "None"}))
    assert "initContainers" not in verdict.patch["spec"]
    assert names.FINALIZER in verdict.patch["metadata"]["finalizers"]
    assert verdict.warnings == ()


def test_of_two_that_select_a_pod_the_oldest_gets_it() -> None:
    older, newer = one("z"), one("a")
    older.document["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    assert admitted(created(), newer, older)["metadata"]["labels"][names.LABEL_SERVER] == "z"


def test_what_can_not_be_judged_is_let_through_with_a_warning() -> None:
    webhook = Webhook(NotImplemented, lambda: {"ns/one": one()}, GATES, host="", port=0, certificates=Path("/none"))
    bad = created(containers="what is this")
    verdict = webhook.judge(bad, "ns")
    assert verdict.patch == {}
    assert "gets no drain gate: template: containers must be a list" in verdict.warnings[0]
    assert webhook.judge(created(), "ns") == judged(created())
