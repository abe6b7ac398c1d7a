"""LeastEstimatedTTFT on few and many pods behind one and many routers: nobody is run over, nobody is forgotten."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tailrace.simulate.engine import Hardware
from tailrace.simulate.run import Run, simulate
from tailrace.simulate.workloads import generate

STRATEGY = "LeastEstimatedTTFT"
RATES = {"no-sharing": 2.0, "system-prompt": 3.5, "hot-prefix": 3.5, "bursts": 2.0, "sessions": 2.2}
"""Requests a second for each pod, at which it has to work."""


def loads(run: Run) -> list[float]:
    """Return each pod's part of the requests, 1 being the mean."""
    return [run.places.count(pod) * run.engines / len(run.places) for pod in range(run.engines)]


@settings(max_examples=15, derandomize=True)
@given(st.sampled_from(sorted(RATES)), st.integers(2, 40), st.sampled_from([1, 4, 16, 64]), st.integers(0, 1000))
def test_no_pod_gets_twice_the_mean_or_next_to_nothing(workload: str, pods: int, routers: int, seed: int) -> None:
    trace = generate(workload, seed, seconds=30, rate=RATES[workload] * pods)
    found = loads(simulate(trace, [Hardware()] * pods, STRATEGY, seed=seed, routers=routers))
    assert max(found) < 2.0
    assert min(found) > 0.15


@pytest.mark.parametrize(("pods", "routers"), [(1000, 64), (1000, 1)])
def test_a_thousand_pods_share_the_requests(pods: int, routers: int) -> None:
    trace = generate("no-sharing", 1, seconds=8, rate=1.6 * pods)
    found = loads(simulate(trace, [Hardware()] * pods, STRATEGY, seed=1, routers=routers))
    assert max(found) < 2.5, "at a mean of 13 requests"
    assert min(found) > 0
