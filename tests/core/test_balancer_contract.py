"""The small public class: every row of its contract."""

from collections.abc import Callable
from typing import Any

import pytest

import tailrace
from tailrace import LoadBalancer, ThreadSafeLoadBalancer

Make = Callable[[], LoadBalancer | ThreadSafeLoadBalancer]
pytestmark = pytest.mark.parametrize("make", [LoadBalancer, ThreadSafeLoadBalancer])
NOT_POSITIVE_INTS: list[Any] = [0, -1, 1.0, True, False, "1", None]


def test_the_package_offers_both_forms(make: Make) -> None:
    assert make.__name__ in tailrace.__all__


def test_a_new_balancer_has_no_servers(make: Make) -> None:
    assert make().get_server_stats() == {}


def test_stats_tell_everything_of_an_idle_server(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    assert balancer.get_server_stats() == {
        "a": {
            "capacity": 4,
            "current_load": 0,
            "gpu_memory_gb": 80,
            "load_ratio": 0.0,
            "is_draining": False,
            "active_requests": [],
        }
    }


def test_stats_tell_load_ratio_and_requests_in_the_order_of_routing(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    for request in ("r2", "r1", "r3"):
        balancer.route_request(request, 1)
    stats = balancer.get_server_stats()["a"]
    assert (stats["current_load"], stats["load_ratio"], stats["active_requests"]) == (3, 0.75, ["r2", "r1", "r3"])


def test_stats_are_a_copy(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    stats = balancer.get_server_stats()
    stats["a"]["active_requests"].append("x")
    stats.clear()
    assert balancer.get_server_stats()["a"]["active_requests"] == []


def test_an_id_is_added_once(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    with pytest.raises(ValueError, match="'a' exists"):
        balancer.add_server("a", 8, 40)
    assert balancer.get_server_stats()["a"]["capacity"] == 4


def test_an_id_is_taken_while_its_server_drains_and_free_afterwards(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    balancer.route_request("r", 1)
    balancer.remove_server("a")
    with pytest.raises(ValueError, match="'a' is still draining, with 1 in flight"):
        balancer.add_server("a", 4, 80)
    balancer.complete_request("r")
    balancer.add_server("a", 2, 40)
    assert balancer.get_server_stats()["a"]["capacity"] == 2


@pytest.mark.parametrize("capacity", [*NOT_POSITIVE_INTS, 1001])
def test_capacity_is_an_int_from_1_to_1000(make: Make, capacity: int) -> None:
    balancer = make()
    with pytest.raises(ValueError, match=r"capacity must be an int in 1\.\.1000, not ") as error:
        balancer.add_server("a", capacity, 80)
    assert repr(capacity) in str(error.value)
    assert balancer.get_server_stats() == {}


@pytest.mark.parametrize("capacity", [1, 1000])
def test_the_bounds_of_capacity_are_within(make: Make, capacity: int) -> None:
    balancer = make()
    balancer.add_server("a", capacity, 80)
    assert balancer.get_server_stats()["a"]["capacity"] == capacity


@pytest.mark.parametrize("memory", NOT_POSITIVE_INTS)
def test_memory_is_a_positive_int(make: Make, memory: int) -> None:
    balancer = make()
    with pytest.raises(ValueError, match="gpu_memory_gb must be a positive int, not ") as error:
        balancer.add_server("a", 4, memory)
    assert repr(memory) in str(error.value)
    assert balancer.get_server_stats() == {}


@pytest.mark.parametrize("tokens", NOT_POSITIVE_INTS)
def test_tokens_are_a_positive_int(make: Make, tokens: int) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    before = balancer.get_server_stats()
    with pytest.raises(ValueError, match="estimated_tokens must be a positive int, not ") as error:
        balancer.route_request("r", tokens)
    assert repr(tokens) in str(error.value)
    assert balancer.get_server_stats() == before


def test_a_request_id_is_in_use_until_it_completes(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    balancer.route_request("r", 1)
    with pytest.raises(ValueError, match="'r' is already routed"):
        balancer.route_request("r", 1)
    assert balancer.get_server_stats()["a"]["current_load"] == 1
    balancer.complete_request("r")
    assert balancer.route_request("r", 1) == "a"


def test_completing_frees_the_slot_once(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    balancer.route_request("r", 1)
    balancer.complete_request("r")
    assert balancer.get_server_stats()["a"]["current_load"] == 0
    with pytest.raises(KeyError, match="no request 'r' in flight"):
        balancer.complete_request("r")
    assert balancer.get_server_stats()["a"]["current_load"] == 0


def test_completing_what_was_never_routed_is_an_error(make: Make) -> None:
    with pytest.raises(KeyError, match="no request 'r' in flight"):
        make().complete_request("r")


def test_removing_an_unknown_server_names_those_there_are(make: Make) -> None:
    balancer = make()
    with pytest.raises(KeyError, match="no server 'x'; there are: none"):
        balancer.remove_server("x")
    balancer.add_server("a", 4, 80)
    balancer.add_server("b", 4, 80)
    with pytest.raises(KeyError, match="no server 'x'; there are: a, b"):
        balancer.remove_server("x")


def test_an_error_names_the_first_ten_servers_of_many(make: Make) -> None:
    balancer = make()
    for number in range(12):
        balancer.add_server(f"s{number}", 4, 80)
    with pytest.raises(KeyError, match="s8, s9 and more"):
        balancer.remove_server("x")


def test_an_idle_server_is_gone_when_removed(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    balancer.remove_server("a")
    assert balancer.get_server_stats() == {}
    with pytest.raises(KeyError):
        balancer.remove_server("a")


def test_a_busy_server_drains_and_is_gone_with_its_last_request(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    balancer.route_request("r1", 1)
    balancer.route_request("r2", 1)
    balancer.remove_server("a")
    balancer.complete_request("r1")
    stats = balancer.get_server_stats()["a"]
    assert (stats["is_draining"], stats["active_requests"]) == (True, ["r2"])
    balancer.complete_request("r2")
    assert balancer.get_server_stats() == {}


def test_a_draining_server_gets_no_request_even_as_the_least_loaded(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 100, 80)
    balancer.route_request("r", 1)
    balancer.add_server("b", 1, 80)
    balancer.remove_server("a")
    assert balancer.route_request("r1", 1) == "b"
    with pytest.raises(RuntimeError):
        balancer.route_request("r2", 1)


def test_removing_a_draining_server_again_changes_nothing(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 4, 80)
    balancer.route_request("r", 1)
    balancer.remove_server("a")
    balancer.remove_server("a")
    assert balancer.get_server_stats()["a"]["is_draining"] is True
    balancer.complete_request("r")
    assert balancer.get_server_stats() == {}


def test_the_lowest_share_of_capacity_wins_not_the_lowest_count(make: Make) -> None:
    balancer = make()
    balancer.add_server("small", 2, 80)
    balancer.add_server("large", 10, 40)
    picks = [balancer.route_request(f"r{number}", 1) for number in range(6)]
    # 0/2 = 0/10: more memory; then 1/2 against 0/10 .. 4/10
    assert picks == ["small", "large", "large", "large", "large", "large"]


def test_a_tie_goes_to_more_memory_then_capacity_then_the_first_added(make: Make) -> None:
    balancer = make()
    balancer.add_server("late", 4, 40)
    balancer.add_server("later", 4, 40)
    balancer.add_server("wide", 8, 40)
    balancer.add_server("deep", 1, 80)
    picks = [balancer.route_request(f"r{number}", 1) for number in range(4)]
    assert picks == ["deep", "wide", "late", "later"]


def test_at_equal_load_the_tie_is_on_memory_that_is_available(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 2, 40)
    balancer.add_server("b", 4, 80)
    first = [balancer.route_request(f"r{number}", 1) for number in range(3)]
    assert first == ["b", "a", "b"]
    assert balancer.route_request("r3", 1) == "b"  # both at 1/2: 40 GB available against 20


def test_memory_and_capacity_of_any_size_keep_the_order_of_the_tie(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 1000, 1)
    balancer.add_server("b", 1, 2)
    balancer.add_server("c", 1, 10**9)
    assert [balancer.route_request(f"r{number}", 1) for number in range(3)] == ["c", "b", "a"]


def test_a_prompt_of_4096_tokens_may_go_anywhere_and_one_of_4097_needs_80_gb(make: Make) -> None:
    balancer = make()
    balancer.add_server("short", 10, 79)
    balancer.add_server("long", 1, 80)
    assert balancer.route_request("r1", 4097) == "long"
    with pytest.raises(RuntimeError):
        balancer.route_request("r2", 4097)
    assert balancer.route_request("r3", 4096) == "short"


def test_short_prompts_may_use_the_large_servers_too(make: Make) -> None:
    balancer = make()
    balancer.add_server("long", 1, 80)
    assert balancer.route_request("r", 1) == "long"


def test_a_refusal_names_request_tokens_and_the_full_servers(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 1, 80)
    balancer.add_server("b", 2, 40)
    for number in range(3):
        balancer.route_request(f"r{number}", 1)
    before = balancer.get_server_stats()
    with pytest.raises(RuntimeError, match=r"'late' of 7 tokens needs a server that is .*full: a 1/1, b 2/2$"):
        balancer.route_request("late", 7)
    assert balancer.get_server_stats() == before
    with pytest.raises(KeyError):
        balancer.complete_request("late")


def test_a_refused_long_prompt_is_told_what_would_have_qualified(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 1, 79)
    with pytest.raises(
        RuntimeError, match=r"of 4097 tokens needs a server with at least 80 GB .* none of the 1 servers"
    ):
        balancer.route_request("r", 4097)
    balancer.add_server("b", 1, 80)
    balancer.route_request("r1", 4097)
    with pytest.raises(RuntimeError, match=r"at least 80 GB .* full: b 1/1$"):
        balancer.route_request("r2", 4097)


def test_a_refused_short_prompt_is_not_told_to_need_memory(make: Make) -> None:
    with pytest.raises(RuntimeError, match="of 4096 tokens needs a server that is not draining"):
        make().route_request("r", 4096)


def test_no_servers_at_all_is_a_refusal(make: Make) -> None:
    with pytest.raises(RuntimeError, match="none of the 0 servers"):
        make().route_request("r", 1)


def test_a_slot_that_was_freed_is_given_again(make: Make) -> None:
    balancer = make()
    balancer.add_server("a", 1, 80)
    balancer.add_server("b", 1, 40)
    balancer.route_request("r1", 1)
    balancer.route_request("r2", 1)
    balancer.complete_request("r1")
    assert balancer.route_request("r3", 5000) == "a"
