"""What each kind of made requests is for must be in it."""

from itertools import pairwise

import pytest

from tailrace.simulate.workloads import WORKLOADS, generate

SECONDS, RATE = 200.0, 10.0


@pytest.mark.parametrize("name", WORKLOADS)
def test_requests_come_in_order_at_the_rate_and_fit_their_chains(name: str) -> None:
    trace = generate(name, 1, seconds=SECONDS, rate=RATE)
    times = [each.at for each in trace.arrivals]
    assert times == sorted(times)
    assert 0.7 <= len(times) / (SECONDS * RATE) <= 1.3
    for each in trace.arrivals:
        assert len(each.chain) * trace.block_tokens <= each.prompt
        assert each.output > 0
        assert len(set(each.chain)) == len(each.chain)


def test_nothing_is_shared_where_nothing_should_be() -> None:
    blocks = [block for each in generate("no-sharing", 1, seconds=50, rate=RATE).arrivals for block in each.chain]
    assert len(set(blocks)) == len(blocks)


def test_everybody_shares_the_system_prompt_and_no_more() -> None:
    chains = [each.chain for each in generate("system-prompt", 1, seconds=50, rate=RATE).arrivals]
    assert {chain[:16] for chain in chains} == {chains[0][:16]}
    rest = [block for chain in chains for block in chain[16:]]
    assert len(set(rest)) == len(rest)


def test_one_document_is_asked_about_half_the_time() -> None:
    firsts = [each.chain[0] for each in generate("hot-prefix", 1, seconds=SECONDS, rate=RATE).arrivals]
    most = max(firsts.count(first) for first in set(firsts))
    assert 0.4 <= most / len(firsts) <= 0.6


def test_bursts_of_thirty_share_a_beginning_and_come_within_a_second() -> None:
    arrivals = generate("bursts", 1, seconds=SECONDS, rate=RATE).arrivals
    groups: dict[int, list[float]] = {}
    for each in arrivals:
        if each.chain:
            groups.setdefault(each.chain[0], []).append(each.at)
    bursts = [times for times in groups.values() if len(times) > 1]
    assert bursts
    assert {len(times) for times in bursts} == {30}
    assert all(max(times) - min(times) <= 1.0 for times in bursts)


def test_a_turn_of_a_session_begins_with_all_that_was_said_before() -> None:
    arrivals = generate("sessions", 1, seconds=SECONDS, rate=RATE).arrivals
    of_session: dict[str, list[tuple[int, ...]]] = {}
    for each in arrivals:
        of_session.setdefault(each.session, []).append(each.chain)
    assert sum(len(chains) > 1 for chains in of_session.values()) > 20
    for chains in of_session.values():
        for before, after in pairwise(chains):
            assert after[: len(before)] == before
