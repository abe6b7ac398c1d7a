"""What exists and which names lead there: servers, endpoints, snapshots, old news."""

from random import Random

import pytest
from tests.core.world import BOOT, ME, MODEL, OTHER, pick, pod, refusal, refused, router, see, server, state, status

from tailrace.core import registry
from tailrace.core.model import (
    EndpointGone,
    EndpointSeen,
    EndpointState,
    ModelSpec,
    Outcome,
    Pick,
    RefusalCode,
    Request,
    ServerGone,
    ServerSeen,
    ServerSpec,
    Snapshot,
    Traits,
)
from tailrace.core.prefill import Prefills
from tailrace.core.router import Router

NOW = BOOT + 1
UNKNOWN, AMBIGUOUS, NO_ENDPOINTS, NOT_QUALIFIED = (
    RefusalCode.UNKNOWN_MODEL,
    RefusalCode.AMBIGUOUS_MODEL,
    RefusalCode.NO_ENDPOINTS,
    RefusalCode.NOT_QUALIFIED,
)


# Names


def test_a_model_nobody_serves_is_not_found() -> None:
    refused_with = refusal(router(), NOW, Request("gpt"))
    assert refused_with.code is UNKNOWN
    assert "'gpt'" in refused_with.message
    assert refused_with.retry_after is None


def test_a_replica_that_has_seen_no_whole_list_does_not_say_that_a_model_is_unknown() -> None:
    of = Router(ME, booted_at=BOOT, rng=Random(0), alone=False)
    refused_with = refusal(of, NOW, Request("gpt"))
    assert (refused_with.code, refused_with.retry_after) == (RefusalCode.NOT_SYNCED, 5)
    assert not of.synced
    of.apply(Snapshot((), ()), NOW)
    assert of.synced
    assert refused(of, NOW, Request("gpt")) is UNKNOWN


def test_a_model_at_zero_replicas_exists() -> None:
    refused_with = refusal(router(), NOW)
    assert refused_with.code is NO_ENDPOINTS
    assert refused_with.retry_after == 5


@pytest.mark.parametrize(
    ("asked", "rewrite"),
    [("meta/Llama-3", "llama-3"), ("gpt-4o-mini", "llama-3"), ("llama-3", None), ("finance-lora", None)],
)
def test_names_aliases_and_adapters_lead_to_the_engines_own_name(asked: str, rewrite: str | None) -> None:
    model = ModelSpec("meta/Llama-3", ("gpt-4o-mini", "llama-3"), ("finance-lora",), "llama-3")
    of = router(pod("a"), servers=(server("s", model),))
    assert pick(of, NOW, model=asked).rewrite == rewrite


@pytest.mark.parametrize(("asked", "rewrite"), [("llama", None), ("alias", "llama")])
def test_without_a_served_name_the_engine_knows_the_model_by_its_own(asked: str, rewrite: str | None) -> None:
    of = router(pod("a"), servers=(server("s", ModelSpec("llama", ("alias",))),))
    assert pick(of, NOW, model=asked).rewrite == rewrite


def test_servers_of_one_namespace_with_one_model_form_a_pool_and_keep_their_own_served_names() -> None:
    of = router(
        pod("a", of="ns/one"),
        pod("b", of="ns/two"),
        servers=(server("one", ModelSpec(MODEL, served_name="x")), server("two", ModelSpec(MODEL, served_name="y"))),
    )
    picks = {each.uid: each.rewrite for each in (pick(of, NOW), pick(of, NOW))}
    assert picks == {"a": "x", "b": "y"}


def test_one_endpoint_is_told_as_it_is_among_all() -> None:
    of = router(pod("a"), pod("b", capacity=7))
    pick(of, NOW)
    assert [of.endpoint(each.uid) for each in of.status().endpoints] == list(of.status().endpoints)
    assert of.endpoint("who") is None


def test_an_alias_of_one_server_leads_to_the_whole_pool() -> None:
    of = router(
        pod("a", of="ns/one", capacity=1),
        pod("b", of="ns/two", capacity=1),
        servers=(server("one", ModelSpec(MODEL, ("alias",))), server("two")),
    )
    picks = {each.uid: each.rewrite for each in (pick(of, NOW, model="alias"), pick(of, NOW, model="alias"))}
    assert picks == {"a": MODEL, "b": MODEL}


def test_an_adapter_leads_only_to_the_servers_that_have_it() -> None:
    of = router(
        pod("a", of="ns/one", capacity=1),
        pod("b", of="ns/two"),
        servers=(server("one", ModelSpec(MODEL, adapters=("lora",))), server("two")),
    )
    assert pick(of, NOW, model="lora").uid == "a"
    assert refused(of, NOW, Request("lora")) is RefusalCode.SATURATED
    see(of, NOW, pod("a", of="ns/one", version=2, ready=False))
    refused_with = refusal(of, NOW, Request("lora"))
    assert refused_with.code is NOT_QUALIFIED
    assert "adapter 'lora'" in refused_with.message


def test_a_pod_with_several_models_counts_its_requests_in_one_place() -> None:
    of = router(pod("a", capacity=1), servers=(server("s", ModelSpec("one"), ModelSpec("two")),))
    pick(of, NOW, model="one")
    assert refused(of, NOW, Request("two")) is RefusalCode.SATURATED


def test_a_name_in_two_namespaces_is_ambiguous_until_one_is_named() -> None:
    of = router(
        pod("a", of="one/s"),
        pod("b", of="two/s"),
        servers=(server(namespace="one"), server(namespace="two")),
    )
    refused_with = refusal(of, NOW)
    assert refused_with.code is AMBIGUOUS
    assert "one, two" in refused_with.message
    assert pick(of, NOW, namespace="two").uid == "b"
    assert refused(of, NOW, Request(MODEL, namespace="three")) is UNKNOWN
    assert of.names() == {MODEL: ("one", "two")}
    of.apply(ServerGone("one/s"), NOW)
    assert pick(of, NOW).uid == "b"


def test_the_oldest_server_keeps_a_name_that_two_want() -> None:
    old, young = (
        server("old", ModelSpec("x", ("name",)), created_at=1),
        server("young", ModelSpec("name"), created_at=2),
    )
    of = router(pod("a", of="ns/old"), pod("b", of="ns/young"), servers=(young, old))
    assert pick(of, NOW, model="name").uid == "a"
    of.apply(ServerGone("ns/old"), NOW)
    assert pick(of, NOW, model="name").uid == "b"


def test_a_pools_settings_come_from_its_oldest_server() -> None:
    old = server("old", created_at=1, strategy="RoundRobin")
    young = server("young", created_at=2)
    of = router(pod("a", of="ns/old", capacity=9), pod("b", of="ns/young", capacity=1000), servers=(young, old))
    assert [pick(of, NOW).uid for _ in range(4)] in (["a", "b"] * 2, ["b", "a"] * 2)
    of.apply(ServerGone("ns/old"), NOW)
    of.apply(ServerSeen(server("old", created_at=3, strategy="RoundRobin")), NOW)
    assert {pick(of, NOW).uid for _ in range(4)} == {"b"}


def test_long_prompts_are_told_what_they_need() -> None:
    of = router(pod("a", memory=40), pod("b", memory=None))
    refused_with = refusal(of, NOW, Request(MODEL, 5000))
    assert refused_with.code is NOT_QUALIFIED
    assert "5000 tokens is above 4096 and needs an endpoint with 80 GB" in refused_with.message
    see(of, NOW, pod("c"))
    assert pick(of, NOW, tokens=5000).uid == "c"


def test_a_pod_of_unknown_memory_serves_short_prompts() -> None:
    assert pick(router(pod("a", memory=None)), NOW).uid == "a"


# Servers come and go


def test_a_server_that_is_removed_gets_no_new_request_and_its_pods_finish_theirs() -> None:
    of = router(pod("a"))
    attempt = pick(of, NOW).attempt
    see(of, NOW, pod("a", version=2, deleted_at=NOW))
    of.apply(ServerGone("ns/s"), NOW)
    assert refused(of, NOW) is UNKNOWN
    assert of.releasable(NOW + 9) == ()
    assert of.release(attempt, Outcome.COMPLETED, NOW + 9)
    assert [release.uid for release in of.releasable(NOW + 9)] == ["a"]


def test_a_server_that_comes_back_finds_its_pods() -> None:
    of = router(pod("a"), pod("b"))
    attempt = pick(of, NOW, avoid=frozenset({"b"})).attempt
    see(of, NOW, pod("b", version=2, deleted_at=NOW))
    of.apply(ServerGone("ns/s"), NOW)
    of.apply(ServerSeen(server()), NOW)
    assert pick(of, NOW).uid == "a"
    assert status(of, "a").in_flight == 2
    assert of.release(attempt, Outcome.COMPLETED, NOW)
    assert status(of, "a").in_flight == 1


def test_a_server_nobody_knows_may_go() -> None:
    of = router(pod("a"))
    of.apply(ServerGone("ns/who"), NOW)
    assert pick(of, NOW).uid == "a"


def test_a_server_that_changes_keeps_its_pods_and_their_requests() -> None:
    of = router(pod("a"))
    pick(of, NOW)
    of.apply(ServerSeen(server("s", ModelSpec("new"), total=60.0)), NOW)
    assert refused(of, NOW) is UNKNOWN
    assert pick(of, NOW, model="new", leased=True).expires_at == NOW + 60
    assert status(of, "a").in_flight == 2


def test_pods_may_be_seen_before_their_server() -> None:
    of = router(pod("a", of="ns/late"))
    assert refused(of, NOW) is NO_ENDPOINTS
    of.apply(ServerSeen(server("late")), NOW)
    assert pick(of, NOW).uid == "a"


def test_the_engine_to_ask_is_the_servers_own() -> None:
    old = pod("a", created_at=BOOT - 1)
    of = router(old)
    of.drain("a", 1, NOW)
    assert of.questions(NOW) == {"a": ("a:8000", "vllm")}
    of.apply(ServerGone("ns/s"), NOW)
    assert of.questions(NOW) == {"a": ("a:8000", "vllm")}


# Endpoints come and go


def test_old_news_of_a_pod_change_nothing() -> None:
    of = router(pod("a", version=5))
    see(of, NOW, pod("a", version=4, ready=False))
    assert state(of, "a") is EndpointState.READY


def test_news_of_the_same_version_count_because_a_node_may_be_lost_without_a_change_of_the_pod() -> None:
    of = router(pod("a", version=5))
    see(of, NOW, pod("a", version=5, ended=True))
    assert refused(of, NOW) is NO_ENDPOINTS


def test_an_unready_pod_keeps_its_count() -> None:
    of = router(pod("a"))
    attempt = pick(of, NOW).attempt
    see(of, NOW, pod("a", version=2, ready=False))
    assert status(of, "a").in_flight == 1
    assert status(of, "a").reason == "is loading"
    see(of, NOW, pod("a", version=3))
    assert status(of, "a").in_flight == 1
    assert of.release(attempt, Outcome.COMPLETED, NOW)


def test_a_pod_may_change_capacity_memory_address_and_server() -> None:
    of = router(pod("a", capacity=1, memory=40), servers=(server(), server("t", ModelSpec("other"))))
    pick(of, NOW)
    assert refused(of, NOW) is RefusalCode.SATURATED
    see(of, NOW, pod("a", version=2, capacity=2, memory=80, address="moved:1"))
    assert pick(of, NOW, tokens=5000).address == "moved:1"
    see(of, NOW, pod("a", version=3, capacity=3, of="ns/t"))
    assert refused(of, NOW) is NO_ENDPOINTS
    assert pick(of, NOW, model="other").uid == "a"


def test_a_pod_that_shrinks_below_its_load_is_full_until_it_has_room() -> None:
    of = router(pod("a", capacity=3))
    attempts = [pick(of, NOW).attempt for _ in range(3)]
    see(of, NOW, pod("a", version=2, capacity=1))
    for attempt in attempts:
        assert refused(of, NOW) is RefusalCode.SATURATED
        of.release(attempt, Outcome.COMPLETED, NOW)
    assert pick(of, NOW).uid == "a"


def test_an_address_used_again_belongs_to_the_new_uid_only() -> None:
    of = router(pod("old", address="10.0.0.1:80"))
    attempt = pick(of, NOW).attempt
    of.apply(EndpointGone("old"), NOW)
    see(of, NOW, pod("new", address="10.0.0.1:80"))
    assert status(of, "new").in_flight == 0
    assert pick(of, NOW).uid == "new"
    of.release(attempt, Outcome.COMPLETED, NOW)
    assert status(of, "new").in_flight == 1


def test_a_deleted_uid_that_is_gone_never_returns_whatever_its_version() -> None:
    of = router(pod("a"))
    see(of, NOW, pod("a", version=5, deleted_at=NOW))
    of.apply(EndpointGone("a"), NOW)
    see(of, NOW, pod("a", version=99))
    of.apply(Snapshot((server(),), (pod("a", version=100),)), NOW)
    assert refused(of, NOW) is NO_ENDPOINTS
    assert of.status().endpoints == ()


def test_an_endpoint_that_was_taken_out_returns_with_newer_news_only() -> None:
    of = router(pod("a", version=7))
    of.apply(EndpointGone("a"), NOW)
    see(of, NOW, pod("a", version=7))
    assert refused(of, NOW) is NO_ENDPOINTS
    see(of, NOW, pod("a", version=8))
    assert pick(of, NOW).uid == "a"


def test_an_endpoint_without_versions_returns_when_its_document_names_it_again() -> None:
    of = router(pod("a", version=0))
    of.apply(Snapshot((server(),), ()), NOW)
    assert refused(of, NOW) is NO_ENDPOINTS
    of.apply(Snapshot((server(),), (pod("a", version=0),)), NOW)
    assert pick(of, NOW).uid == "a"


def test_an_endpoint_that_returns_still_has_what_was_in_flight_there() -> None:
    of = router(pod("a", version=1))
    proxied, leased = pick(of, NOW).attempt, pick(of, NOW, leased=True).attempt
    of.apply(EndpointGone("a"), NOW)
    see(of, NOW, pod("a", version=2))
    assert status(of, "a").in_flight == 2
    see(of, NOW, pod("a", version=3, deleted_at=NOW))
    of.release(proxied, Outcome.COMPLETED, NOW)
    assert of.releasable(NOW + 10) == ()
    of.release(leased, Outcome.COMPLETED, NOW + 10)
    assert [release.uid for release in of.releasable(NOW + 20)] == ["a"]


def test_losing_what_was_never_seen_says_nothing_about_what_comes() -> None:
    of = router()
    of.apply(EndpointGone("a"), NOW)
    see(of, NOW, pod("a"))
    assert pick(of, NOW).uid == "a"


def test_the_memory_of_gone_uids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REMEMBERED_GONE", 2)
    of = router(*(pod(uid, deleted_at=NOW) for uid in "abc"))
    for uid in "abc":
        of.apply(EndpointGone(uid), NOW)
    see(of, NOW, *(pod(uid, version=9) for uid in "abc"))
    assert [each.uid for each in of.status().endpoints] == ["a"]


# Snapshots


def test_what_a_snapshot_does_not_name_is_gone() -> None:
    of = router(pod("a"), pod("b"), servers=(server(), server("t", ModelSpec("other"))))
    of.apply(Snapshot((server(),), (pod("b", version=2), pod("c"))), NOW)
    assert {each.uid for each in of.status().endpoints} == {"b", "c"}
    assert refused(of, NOW, Request("other")) is UNKNOWN
    assert of.drain_status("a") is None
    assert state(of, "c") is EndpointState.READY


def test_a_snapshot_that_repeats_what_is_known_changes_nothing() -> None:
    of = router(pod("a"))
    pick(of, NOW)
    before = of.status()
    of.apply(Snapshot((server(),), (pod("a"),)), NOW)
    assert of.status() == before


def test_a_snapshot_begins_the_drains_it_shows_and_ends_the_cordons_it_does_not() -> None:
    of = router(pod("a"), pod("b", cordon=1))
    of.apply(Snapshot((server(),), (pod("a", version=2, deleted_at=NOW), pod("b", version=2))), NOW)
    assert (state(of, "a"), state(of, "b")) == (EndpointState.DRAINING, EndpointState.READY)


def test_a_snapshot_takes_servers_before_endpoints() -> None:
    of = router(servers=(server("x", ModelSpec("x")),))
    of.apply(Snapshot((server(total=9000.0),), (pod("a"),)), NOW)
    assert pick(of, NOW, leased=True).expires_at == NOW + 9000


# Members


def test_members_share_each_pods_capacity() -> None:
    of = router(pod("a", capacity=5))
    of.set_members(frozenset({ME, OTHER}), NOW)
    for _ in range(3):
        pick(of, NOW)
    assert refused(of, NOW) is RefusalCode.SATURATED
    assert status(of, "a").capacity == 5
    see(of, NOW, pod("b", capacity=1))
    assert pick(of, NOW).uid == "b"
    of.set_members(frozenset(), NOW)
    assert pick(of, NOW).uid == "a"


def test_status_tells_everything() -> None:
    of = router(pod("a"))
    attempt = pick(of, NOW).attempt
    of.release(attempt, Outcome.COMPLETED, NOW + 1)
    pick(of, NOW)
    told = of.status()
    assert told.servers == (server(),)
    assert (told.in_flight, told.drains) == (1, 0)
    assert told.outcomes == {**{outcome.value: 0 for outcome in Outcome}, "completed": 1}
    (one,) = told.endpoints
    assert (one.uid, one.server, one.name, one.address, one.node) == ("a", "ns/s", "pod-a", "a:8000", "node-1")
    assert (one.state, one.in_flight, one.unknown, one.capacity) == (EndpointState.READY, 1, 0, 4)
    assert (one.gpu_memory_gb, one.reason) == (80, "")


# Refusals


def test_saturation_tells_when_to_come_back() -> None:
    of = router(pod("a", capacity=1))
    of.release(pick(of, NOW).attempt, Outcome.COMPLETED, NOW + 100)
    pick(of, NOW)
    refused_with = refusal(of, NOW)
    assert refused_with.code is RefusalCode.SATURATED
    assert refused_with.retry_after is not None
    assert 2 <= refused_with.retry_after <= 60


def test_a_pool_with_nothing_but_what_is_to_be_avoided_has_no_other_endpoint() -> None:
    of = router(pod("a"))
    refused_with = refusal(of, NOW, Request(MODEL, avoid=frozenset({"a"})))
    assert refused_with.code is NO_ENDPOINTS
    assert "no other endpoint" in refused_with.message


def test_attempts_that_did_not_complete_teach_nothing() -> None:
    of = router(pod("a", capacity=1))
    of.release(pick(of, NOW).attempt, Outcome.FAILED, NOW + 1000)
    pick(of, NOW)
    assert refusal(of, NOW).retry_after == 1


def test_a_replica_that_stops_takes_nothing_new() -> None:
    of = router(pod("a"))
    of.close()
    refused_with = refusal(of, NOW)
    assert (refused_with.code, refused_with.retry_after) == (RefusalCode.SHUTTING_DOWN, 1)


def test_a_first_byte_is_noted_once_and_for_attempts_in_flight_only() -> None:
    of: Router = router(pod("a"))
    attempt = pick(of, NOW).attempt
    of.first_byte(attempt, NOW + 1)
    of.first_byte(attempt, NOW + 2)
    of.first_byte("who", NOW)
    noted = of._ledger.get(attempt)
    assert noted is not None
    assert noted.first_byte_at == NOW + 1


def test_an_observation_is_a_value_that_may_be_told_twice() -> None:
    of = router(pod("a"))
    for _ in range(2):
        of.apply(EndpointSeen(pod("a", version=2, deleted_at=NOW)), NOW)
    assert of.status().drains == 1


# What pools remember


def noted(of: Router) -> set[str]:
    """Return the endpoints of which the pool of ``ns/s`` remembers prompts."""
    (notes,) = [pool.notes for key, _, pool in of._registry.pools() if key == f"ns/{MODEL}"]
    assert isinstance(notes, Prefills)
    return {each.uid for each in notes.index._blocks}


def remembers(*servers: ServerSpec) -> Router:
    """Return a router with an endpoint of ``ns/t``, which has read a prompt."""
    of = Router(ME, booted_at=BOOT, rng=Random(0))
    of.apply(Snapshot(servers, (pod("p", of="ns/t"),)), NOW)
    assert isinstance(of.acquire(Request(MODEL, traits=Traits(10, chain=(1, 2))), NOW), Pick)
    assert noted(of) == {"p"}
    return of


TTFT = "LeastEstimatedTTFT"


def test_a_pool_forgets_an_endpoint_whose_server_goes_while_another_keeps_the_pool() -> None:
    of = remembers(server("s", strategy=TTFT), server("t", strategy=TTFT, created_at=2.0))
    of.apply(ServerGone("ns/t"), NOW)
    assert noted(of) == set()


def test_a_pool_forgets_an_endpoint_that_changes_to_another_server_and_not_one_that_stays_in_it() -> None:
    other = server("u", ModelSpec("other"), strategy=TTFT)
    of = remembers(server("s", strategy=TTFT), server("t", strategy=TTFT), other)
    see(of, NOW, pod("p", of="ns/s", version=2))
    assert noted(of) == {"p"}
    see(of, NOW, pod("p", of="ns/u", version=3))
    assert noted(of) == set()
