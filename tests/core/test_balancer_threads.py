"""The thread-safe form under contention: no slot lost, none given twice."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Barrier, Thread

import pytest

from tailrace import ThreadSafeLoadBalancer

THREADS = 8
PAIRS = 400


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Let the interpreter switch threads at nearly every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], None]) -> None:
    """Run the work in all threads at one time; its first error is the test's."""
    start = Barrier(THREADS)
    errors: list[Exception] = []

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_no_slot_is_lost_or_given_twice_while_threads_route_and_complete() -> None:
    balancer = ThreadSafeLoadBalancer()
    balancer.add_server("a", THREADS, 80)
    balancer.add_server("b", 1, 40)

    def work(number: int) -> None:
        for pair in range(PAIRS):
            balancer.route_request(f"{number}-{pair}", 1)
            balancer.complete_request(f"{number}-{pair}")

    in_threads(work)
    assert {name: stats["current_load"] for name, stats in balancer.get_server_stats().items()} == {"a": 0, "b": 0}


def test_the_last_slots_go_to_exactly_as_many_threads_as_there_are() -> None:
    balancer = ThreadSafeLoadBalancer()
    balancer.add_server("a", THREADS * PAIRS // 4, 80)
    outcomes: Counter[str] = Counter()

    def work(number: int) -> None:
        routed = Counter(_try_route(balancer, f"{number}-{pair}") for pair in range(PAIRS))
        outcomes.update(routed)

    in_threads(work)
    stats = balancer.get_server_stats()["a"]
    assert outcomes["a"] == stats["capacity"] == stats["current_load"] == len(stats["active_requests"])


def test_one_request_id_is_routed_by_one_thread_only() -> None:
    balancer = ThreadSafeLoadBalancer()
    balancer.add_server("a", 1000, 80)
    wins: Counter[str] = Counter()

    def work(_number: int) -> None:
        wins.update(f"r{pair}" for pair in range(PAIRS) if _try_route(balancer, f"r{pair}") == "a")

    in_threads(work)
    assert set(wins.values()) == {1}
    assert balancer.get_server_stats()["a"]["current_load"] == PAIRS


def test_servers_come_and_go_while_threads_route() -> None:
    balancer = ThreadSafeLoadBalancer()
    balancer.add_server("stays", THREADS, 80)

    def work(number: int) -> None:
        for pair in range(PAIRS // 4):
            mine = f"own-{number}-{pair}"
            balancer.add_server(mine, 2, 80)
            balancer.route_request(mine, 1)
            balancer.remove_server(mine)
            balancer.get_server_stats()
            balancer.complete_request(mine)

    in_threads(work)
    stats = balancer.get_server_stats()
    assert list(stats) == ["stays"]
    assert stats["stays"]["current_load"] == 0


def _try_route(balancer: ThreadSafeLoadBalancer, request: str) -> str:
    try:
        return balancer.route_request(request, 1)
    except (ValueError, RuntimeError) as error:
        return type(error).__name__
