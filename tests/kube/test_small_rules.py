"""Small pure rules of the Kubernetes side: reasons, members, costs, histories, pools, patches."""

from dataclasses import replace
from typing import Any

import pytest
from tests.kube.documents import Document, model, pod, server, understood

from tailrace.api.inferenceserver import Selector
from tailrace.api.spec import Strategy, WeightBy
from tailrace.core.model import (
    DrainOutcome,
    DrainReason,
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    Observation,
    PoolSettings,
    Release,
    ServerGone,
    Snapshot,
)
from tailrace.core.strategies import STRATEGIES, WEIGHTS
from tailrace.kube import costs, finalizers, history, membership, pools, reviews
from tailrace.kube.cordons import change, mark_gate
from tailrace.kube.departure import departure
from tailrace.kube.mailbox import Mailbox
from tailrace.kube.podstate import owner_of
from tailrace.kube.serverstate import fixed_endpoints, pool_settings, server_spec
from tailrace.link import Cordon, GateMark, Review


def replica_set(name: str, revision: int, replicas: int, **meta: object) -> Document:
    owner = [{"uid": "deployment", "controller": True}]
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    metadata = {"name": name, "uid": f"uid-{name}", "annotations": annotations, "ownerReferences": owner, **meta}
    return {"metadata": metadata, "spec": {"replicas": replicas}}


def owned(name: str, by: str, **meta: Any) -> Document:  # noqa: ANN401
    return pod(name, ownerReferences=[{"uid": f"uid-{by}", "controller": True}], **meta)


NOW: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:10:00Z"}


@pytest.mark.parametrize(
    ("sets", "living", "wanted", "reason"),
    [
        ([replica_set("old", 1, 2), replica_set("new", 2, 1)], 1, 2, DrainReason.ROLLOUT),
        ([replica_set("old", 1, 1)], 1, 1, DrainReason.SCALE_DOWN),
        ([replica_set("old", 1, 2)], 1, 2, DrainReason.DELETE),
        ([replica_set("old", 1, 2)], 1, 1, DrainReason.SCALE_DOWN),
        ([replica_set("old", 1, 0, **NOW)], 0, None, DrainReason.DELETE),
        ([], 1, 1, DrainReason.DELETE),
    ],
)
def test_why_a_pod_goes_away(sets: list[Document], living: int, wanted: int | None, reason: DrainReason) -> None:
    going = owned("going", "old", **NOW)
    assert departure(going, replica_sets=sets, living=lambda _: living, wanted=wanted) is reason


SELECTOR = Selector.model_validate(
    {
        "matchLabels": {"app": "llm"},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["test"]},
            {"key": "zone", "operator": "In", "values": ["a", "b"]},
            {"key": "gpu", "operator": "Exists"},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }
)
MATCHING = {"app": "llm", "zone": "a", "gpu": ""}


@pytest.mark.parametrize(
    ("labels", "selected"),
    [
        (MATCHING, True),
        (MATCHING | {"tier": "prod"}, True),
        (MATCHING | {"app": "web"}, False),
        (MATCHING | {"tier": "test"}, False),
        (MATCHING | {"zone": "c"}, False),
        (MATCHING | {"old": ""}, False),
        ({"app": "llm", "zone": "a"}, False),
    ],
)
def test_a_selector_selects_as_kubernetes_does(labels: dict[str, str], selected: bool) -> None:
    assert membership.selects(SELECTOR, labels) is selected


def test_a_selector_is_written_as_lists_want_it() -> None:
    assert membership.query(SELECTOR) == "app=llm,tier notin (test),zone in (a,b),gpu,!old"


def test_entering_keeps_the_finalizers_of_others_and_leaving_takes_only_ours() -> None:
    plain = pod(finalizers=["other/one"])
    entered = membership.entry(plain, model(selector={"matchLabels": {"app": "llm"}}))["metadata"]
    assert entered["finalizers"] == ["other/one", "tailrace.dev/drain"]
    assert (entered["uid"], entered["resourceVersion"]) == ("uid-a", "1")
    marked = pod(finalizers=["other/one", "tailrace.dev/drain"], annotations={"tailrace.dev/adopted": "true", "x": "y"})
    left = membership.exit_(marked)["metadata"]
    assert left["finalizers"] == ["other/one"]
    assert left["annotations"] == {"tailrace.dev/adopted": None}
    assert left["labels"] == {"tailrace.dev/server": None}


def test_only_our_finalizer_is_removed_and_only_from_the_very_pod() -> None:
    patch = finalizers.removal(pod(finalizers=["other/one", "tailrace.dev/drain"]))
    assert patch == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-a"},
        {"op": "test", "path": "/metadata/finalizers/1", "value": "tailrace.dev/drain"},
        {"op": "remove", "path": "/metadata/finalizers/1"},
    ]
    assert finalizers.removal(pod(finalizers=["other/one"])) is None


def test_only_costs_that_differ_are_written_and_never_on_pods_that_go() -> None:
    priced = pod("priced", annotations={costs.COST: "3"})
    found = costs.changes([pod("idle"), pod("busy"), priced, pod("going", **NOW)], {"uid-busy": 4, "uid-going": 9})
    assert [(each["metadata"]["name"], cost) for each, cost in found] == [("busy", "4"), ("priced", "0")]


def released(number: int, outcome: DrainOutcome = DrainOutcome.DRAINED) -> Release:
    return Release(f"u{number}", DrainReason.ROLLOUT, outcome, 100.0 + number, 112.34 + number, 5, 4, 1)


def test_the_history_keeps_the_last_ten_drains_and_repeats_none() -> None:
    drains = history.History()
    for number in [*range(12), 11]:
        drains.add("ns/one", history.entry(released(number), f"pod-{number}"))
    told = drains.of("ns/one", drains.of("ns/one"))
    assert [drain["pod"] for drain in told] == [f"pod-{number}" for number in range(11, 1, -1)]
    assert told[0]["seconds"] == 12.3


def test_an_event_says_how_a_drain_ended_with_figures() -> None:
    assert history.sentence(released(0)) == (
        "Drained",
        "Drained: 5 requests in flight at the start, 4 finished, 1 lost, 12.3 s (rollout)",
    )
    assert history.sentence(released(0, DrainOutcome.DEADLINE))[0] == "DrainDeadlineExceeded"
    alone = replace(released(0), in_flight_at_start=1)
    assert history.sentence(alone)[1].startswith("Drained: 1 request in flight at the start, ")


def test_the_younger_of_two_servers_of_one_model_has_no_say_in_the_pool() -> None:
    older = server_spec(model())
    document = server("a-two", models=[{"name": "model-one"}], loadBalancing={"strategy": "RoundRobin"})
    document["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    younger = understood(document).spec
    assert set(pools.standing(younger, [older, younger])) == {pools.POOL_SETTINGS_IGNORED}
    assert pools.standing(older, [older, younger]) == {}


def test_a_name_that_two_namespaces_serve_is_ambiguous_for_both() -> None:
    here = server_spec(model())
    there = understood(server("two", "elsewhere", models=[{"name": "other", "aliases": ["model-one"]}])).spec
    for one, other in ((here, there), (there, here)):
        found = pools.standing(one, [here, there])
        assert other.key in found[pools.AMBIGUOUS_MODEL].message


def test_a_fixed_endpoint_is_ready_and_takes_what_it_does_not_say_from_the_server() -> None:
    known = model(capacity=9, gpuMemoryGB=24, endpoints=[{"address": "h:1", "gpuMemoryGB": 80}, {"address": "h:2"}])
    first, second = fixed_endpoints(known)
    assert (first.uid, first.ready, first.gpu_memory_gb, first.capacity) == ("ns/one/h:1", True, 80, 9)
    assert second.gpu_memory_gb == 24


def test_weight_and_speed_of_a_fixed_endpoint_go_before_those_of_the_server() -> None:
    known = model(
        weight=3, gpuTFLOPS=65, endpoints=[{"address": "h:1", "weight": 5, "gpuTFLOPS": 312}, {"address": "h:2"}]
    )
    assert [(each.weight, each.gpu_tflops) for each in fixed_endpoints(known)] == [(5, 312), (3, 65)]


def test_a_backup_is_one_by_its_server_or_by_its_own_word() -> None:
    listed = [{"address": "h:1"}, {"address": "h:2", "backup": True}, {"address": "h:3", "backup": False}]
    assert [each.backup for each in fixed_endpoints(model(endpoints=listed))] == [False, True, False]
    assert [each.backup for each in fixed_endpoints(model(endpoints=listed, backup=True))] == [True, True, False]
    assert owner_of(model(backup=True)).backup
    assert not owner_of(model()).backup


def test_every_setting_of_a_strategy_reaches_the_pool() -> None:
    session = {"header": "x-chat", "mode": "Hard", "ttlSeconds": 60}
    balancing = {
        "strategy": "SessionAffinity",
        "weightBy": "Hardware",
        "latency": "P95",
        "session": session,
        "maxLoadPercent": 150,
        "engineMetrics": {"read": "Always", "intervalSeconds": 5},
        "scoreWeights": {"gpuPercent": 10, "memoryPercent": 20, "queuePercent": 30, "latencyPercent": 40},
        "maxKVUsagePercent": 80,
        "spillPercent": 60,
        "whenPoor": {"strategy": "LeastRequests", "afterSeconds": 60, "forSeconds": 600},
        "longPromptTokens": 1,
        "longPromptMinGPUMemoryGB": 2,
    }
    queue = {"maxRequests": 7, "maxWaitSeconds": 8}
    assert pool_settings(model(loadBalancing=balancing, queue=queue)) == PoolSettings(
        "SessionAffinity",
        1,
        2,
        "Hardware",
        "P95",
        "x-chat",
        60,
        hard_sessions=True,
        max_load_percent=150,
        read_engines="Always",
        engine_interval=5,
        max_kv_usage=0.8,
        score_weights=(10, 20, 30, 40),
        spill_percent=60,
        queue_size=7,
        queue_seconds=8,
        fallback="LeastRequests",
        fallback_after=60,
        fallback_for=600,
    )


def test_nobody_waits_for_longer_than_a_request_may_take() -> None:
    made = model(queue={"maxWaitSeconds": 30}, timeouts={"totalSeconds": 10})
    assert pool_settings(made).queue_seconds == 10


def test_what_the_resource_leaves_out_is_what_the_core_does_by_itself() -> None:
    assert pool_settings(model()) == PoolSettings()


def test_the_core_has_every_strategy_that_the_resource_names_and_no_other() -> None:
    assert list(STRATEGIES) == [strategy.value for strategy in Strategy]
    assert set(WEIGHTS) == {weight.value for weight in WeightBy}


def said(draining: bool, generation: int) -> Cordon:
    return Cordon("uid-a", draining, generation)


def test_a_cordon_marks_and_unmarks_the_very_pod_as_it_was_seen() -> None:
    marked = (change(pod(), said(True, 7), moment=0.0) or {})["metadata"]
    assert (marked["uid"], marked["resourceVersion"]) == ("uid-a", "1")
    assert marked["annotations"]["tailrace.dev/draining"] == "7"
    assert marked["annotations"]["tailrace.dev/drain-reason"] == "manual"
    draining = pod(annotations=marked["annotations"])
    unmarked = (change(draining, said(False, 8), moment=0.0) or {})["metadata"]
    assert set(unmarked["annotations"].values()) == {None}


@pytest.mark.parametrize(
    ("standing", "cordon", "due"),
    [
        (None, said(True, 7), True),
        (None, said(False, 7), False),
        ("7", said(True, 7), False),
        ("7", said(True, 8), True),
        ("7", said(True, 6), False),
        ("7", said(False, 6), False),
        ("7", said(False, 7), True),
        ("true", said(False, 2), True),
    ],
)
def test_an_older_cordon_never_replaces_a_newer_one(standing: str | None, cordon: Cordon, due: bool) -> None:
    annotations = {} if standing is None else {"tailrace.dev/draining": standing}
    assert (change(pod(annotations=annotations), cordon, moment=0.0) is not None) is due


async def test_a_gates_call_is_marked_on_the_very_pod_once() -> None:
    written: list[Any] = []

    class Api:
        async def patch(self, *what: object) -> None:
            written.append(what)

    marked = pod(annotations={"tailrace.dev/gate-drain": "c://1"})
    for each in (pod(), marked):
        await mark_gate(Api(), each, GateMark("uid-a", "c://1"))  # type: ignore[arg-type]
    await mark_gate(Api(), marked, GateMark("uid-a", "c://2"))  # type: ignore[arg-type]
    assert [what[1:] for what in written] == [
        ("ns", "a", {"metadata": {"uid": "uid-a", "annotations": {"tailrace.dev/gate-drain": told}}})
        for told in ("c://1", "c://2")
    ]


def test_an_access_review_asks_about_our_group_in_the_namespace() -> None:
    asked = reviews.access_review(Review(1, "t", verb="update", namespace="ns"), {"username": "u", "groups": ["g"]})
    assert asked["spec"]["resourceAttributes"] == {
        "group": "inference.tailrace.dev",
        "resource": "inferenceservers",
        "verb": "update",
        "namespace": "ns",
    }
    assert asked["spec"]["groups"] == ["g"]


def seen(uid: str, address: str = "h:1") -> Observation:
    return EndpointSeen(EndpointSpec(uid, "ns/one", uid, address, 1, ready=True))


async def test_a_mailbox_keeps_the_newest_of_each_thing_in_bounded_batches() -> None:
    mailbox = Mailbox()
    for observation in (seen("a"), seen("b"), seen("a", "h:2"), ServerGone("ns/one"), EndpointGone("b")):
        mailbox.put(observation)
    assert await mailbox.take(2) == (seen("a", "h:2"), EndpointGone("b"))
    assert await mailbox.take(2) == (ServerGone("ns/one"),)


async def test_a_snapshot_replaces_everything_before_it() -> None:
    mailbox, snapshot = Mailbox(), Snapshot((), ())
    for observation in (seen("a"), snapshot, seen("b")):
        mailbox.put(observation)
    assert await mailbox.take(9) == (snapshot, seen("b"))
