"""Whole simulations: nothing is lost, equal ones are equal, and what strategies are for is seen in them."""

from random import Random

import pytest

from tailrace.simulate.balancers import Setting, balancer, names
from tailrace.simulate.engine import Engine, Hardware
from tailrace.simulate.run import Change, Run, simulate
from tailrace.simulate.study import Estimate, Row, estimate, figures, least_ttfts, quantile, study
from tailrace.simulate.trace import Arrival, Trace
from tailrace.simulate.workloads import generate

FLEET = [Hardware(slots=16)] * 3 + [Hardware(slots=16, speed=0.5)]


def ttft99(run: Run) -> float:
    return figures(run).ttft99


@pytest.mark.parametrize("name", names())
def test_every_request_is_served_by_everybody_and_equal_runs_are_equal(name: str) -> None:
    trace = generate("sessions", 1, seconds=40, rate=10)
    first, again = (simulate(trace, FLEET, name, seed=3, capacity=16) for _ in range(2))
    assert all(job.ended_at is not None for job in first.jobs)
    assert all(0 <= place < len(FLEET) for place in first.places)
    assert len(set(first.places)) == len(FLEET)
    assert first.places == again.places
    assert figures(first) == figures(again)


def test_an_unknown_strategy_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no strategy 'Best'; there are WeightedLeastConnections"):
        balancer("Best", [Engine(Hardware(), 1)], Setting(1, Random(0), 1), lambda *_: None)


def test_what_no_pod_has_a_slot_for_waits_in_order_and_is_counted() -> None:
    trace = Trace(tuple(Arrival(0.0, 8000, 1) for _ in range(6)))
    run = simulate(trace, [Hardware(base=0.0)] * 2, "LeastRequests", seed=0, capacity=1)
    assert [job.first_at for job in run.jobs] == pytest.approx([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    assert figures(run).waited == pytest.approx(4 / 6)


@pytest.mark.parametrize("workload", ["no-sharing", "sessions", "system-prompt"])
def test_the_least_estimated_ttft_beats_counting_requests(workload: str) -> None:
    trace = generate(workload, 1, seconds=60, rate=8)
    best, counted = (
        simulate(trace, FLEET, name, seed=1, capacity=64) for name in ("LeastEstimatedTTFT", "LeastRequests")
    )
    assert ttft99(best) < ttft99(counted)


def test_prefixes_are_kept_together_by_those_who_know_of_them() -> None:
    trace = generate("sessions", 1, seconds=60, rate=10)
    hits = {name: figures(simulate(trace, FLEET, name, seed=1)).hits for name in names()}
    aware = ("LeastEstimatedTTFT", "SessionAffinity", "sglang-cache-aware", "llm-d-scorers")
    assert min(hits[name] for name in aware) > 1.2 * hits["RoundRobin"]


def test_one_hot_prefix_does_not_bury_an_engine() -> None:
    trace = generate("hot-prefix", 1, seconds=60, rate=12)
    for name in ("LeastEstimatedTTFT", "PrefixCache"):
        run = simulate(trace, [Hardware(slots=64)] * 8, name, seed=1)
        shares = [run.places.count(place) / len(run.places) for place in range(8)]
        assert max(shares) < 3 / 8, name


def share(run: Run, engine: int, start: float, end: float) -> float:
    """Return the engine's part of the prompt tokens that came in that time."""
    tokens = [
        (place, job.arrival.prompt)
        for job, place in zip(run.jobs, run.places, strict=True)
        if start <= job.arrival.at < end
    ]
    return sum(prompt for place, prompt in tokens if place == engine) / sum(prompt for _, prompt in tokens)


def test_the_share_of_an_engine_that_slows_down_four_times_follows_within_ten_seconds_and_back() -> None:
    usual, slow = Hardware(), Hardware(speed=0.25)
    trace = generate("no-sharing", 1, seconds=240, rate=11)
    changes = (Change(80.0, 0, slow), Change(160.0, 0, usual))
    # Without a bound on requests in flight: it would make anybody's share follow.
    run = simulate(trace, [usual] * 4, "LeastEstimatedTTFT", seed=1, capacity=1000, changes=changes)
    assert 0.18 < share(run, 0, 20, 80) < 0.32
    assert share(run, 0, 90, 160) < 0.12, "one in thirteen would be even"
    assert 0.18 < share(run, 0, 170, 240) < 0.32
    blind = simulate(trace, [usual] * 4, "RoundRobin", seed=1, capacity=1000, changes=changes)
    assert share(blind, 0, 90, 160) > 0.18, "it does not follow by itself"


@pytest.mark.parametrize("name", ["LeastTokens", "ShortestExpectedCompletion", "LeastEstimatedTTFT"])
def test_many_routers_that_do_not_see_each_other_do_not_all_choose_the_same(name: str) -> None:
    trace = generate("no-sharing", 1, seconds=30, rate=100)
    run = simulate(trace, [Hardware()] * 100, name, seed=1, routers=64)
    loads = [run.places.count(place) for place in range(100)]
    assert sum(loads) == len(run.jobs)
    assert min(loads) > 0
    assert max(loads) < 3 * sum(loads) / len(loads)


def test_several_routers_share_the_capacity_of_a_pod() -> None:
    trace = Trace(tuple(Arrival(0.0, 8000, 1) for _ in range(8)))
    run = simulate(trace, [Hardware(base=0.0)], "LeastRequests", seed=0, capacity=4, routers=2)
    sent_at_once = [job for job in run.jobs if job.sent_at == 0.0]
    assert len(sent_at_once) in {3, 4}, "two each, and the first to be refused holds up those behind it"


def test_figures_are_of_the_requests_that_were_run() -> None:
    trace = Trace((Arrival(0.0, 8000, 11), Arrival(10.0, 4000, 1)))
    found = figures(simulate(trace, [Hardware(base=0.0)] * 2, "RoundRobin", seed=0))
    assert (found.ttft50, found.ttft99) == pytest.approx((0.5, 1.0))
    assert found.itl == pytest.approx(0.02)
    assert found.busiest == pytest.approx(8 / 6)
    assert found.hits == found.waited == 0.0


def test_quantiles_and_intervals_are_those_of_the_books() -> None:
    assert [quantile(range(1, 101), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert quantile([7], 0.5) == 7
    assert estimate([3.0]) == Estimate(3.0, 0.0)
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.within == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=1e-3)
    assert estimate([1.0, 2.0] * 10).within == pytest.approx(1.96 * 0.51299 / 20**0.5, rel=1e-3)


def test_nobody_has_a_first_token_before_it_could_be() -> None:
    trace = generate("sessions", 1, seconds=40, rate=10)
    least = least_ttfts(trace, FLEET)
    assert len(least) == len(trace.arrivals)
    for name in ("LeastEstimatedTTFT", "LeastRequests"):
        jobs = simulate(trace, FLEET, name, seed=3, capacity=16).jobs
        assert all(
            bound <= job.first_at - job.arrival.at + 1e-9
            for bound, job in zip(least, jobs, strict=True)
            if job.first_at is not None
        )
    alone = Trace((Arrival(0.0, 8000, 1, (1, 2)), Arrival(50.0, 8000, 1, (1, 2))), 2000)
    assert least_ttfts(alone, FLEET) == pytest.approx([1.03, 0.53])


def test_a_study_runs_everybody_on_the_same_requests() -> None:
    rows = study(lambda seed: generate("bursts", seed, seconds=20, rate=5), FLEET, ["RoundRobin", "random"], seeds=2)
    assert [row.strategy for row in rows] == ["RoundRobin", "random"]
    assert [len(row.figures) for row in rows] == [2, 2]
    assert isinstance(rows[0], Row)
    assert rows[0].estimate("ttft99").mean > 0
