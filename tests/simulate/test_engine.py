"""The engine's rules, by hand and against the step-by-step engine of `tailrace model-server`."""

from math import inf
from random import Random

import pytest

from tailrace.sim.engine import Engine as StepEngine
from tailrace.sim.profile import Profile
from tailrace.sim.sequence import Sequence
from tailrace.simulate.engine import Engine, Hardware, Job
from tailrace.simulate.run import simulate
from tailrace.simulate.trace import Arrival, Trace

HARDWARE = Hardware(slots=4, prefill=1000.0, base=0.1, itl=0.02, itl_growth=0.5, kv_tokens=10_000, cache_tokens=2_000)
BLOCK = 100


def served(*arrivals: Arrival, hardware: Hardware = HARDWARE) -> list[Job]:
    return list(simulate(Trace(arrivals, BLOCK), [hardware], "RoundRobin", seed=0, capacity=1000).jobs)


def first(job: Job) -> float:
    assert job.first_at is not None
    return job.first_at


def end(job: Job) -> float:
    assert job.ended_at is not None
    return job.ended_at


def test_the_first_token_takes_the_prefill_and_the_base_and_the_rest_follow_at_the_itl() -> None:
    (job,) = served(Arrival(5.0, 1000, 11))
    assert first(job) == pytest.approx(6.1)
    assert end(job) == pytest.approx(6.1 + 10 * 0.02)


def test_prefills_are_computed_one_after_the_other() -> None:
    jobs = served(*(Arrival(0.0, 1000, 1) for _ in range(3)))
    assert [first(job) for job in jobs] == pytest.approx([1.1, 2.1, 3.1])


def test_a_batch_is_slower_for_each() -> None:
    a, b = served(Arrival(0.0, 100, 1001), Arrival(0.0, 100, 1001))
    alone, together = 0.1, 0.02 * 1.5
    shared = 1000 - alone / 0.02
    assert end(a) == pytest.approx(first(b) + shared * together)
    assert end(b) == pytest.approx(end(a) + 0.02 * (1000 - shared))


def test_what_was_computed_before_is_not_computed_again() -> None:
    a, b = served(Arrival(0.0, 1000, 1, tuple(range(10))), Arrival(10.0, 1500, 1, tuple(range(15))))
    assert (a.cached, b.cached) == (0, 1000)
    assert first(b) == pytest.approx(10.0 + 0.5 + 0.1)
    (_, whole) = served(Arrival(0.0, 1000, 1, tuple(range(10))), Arrival(10.0, 1000, 1, tuple(range(10))))
    assert whole.cached == 999, "the last token is always computed"


def test_the_cache_forgets_the_tails_of_what_was_used_least_recently() -> None:
    chains = [tuple(number * 100 + block for block in range(15)) for number in range(2)]
    jobs = served(
        Arrival(0.0, 1500, 1, chains[0]), Arrival(10.0, 1500, 1, chains[1]), Arrival(20.0, 1500, 1, chains[0])
    )
    assert jobs[2].cached == 500


def test_requests_wait_in_order_for_a_slot() -> None:
    jobs = served(*(Arrival(0.0, 100, 1000) for _ in range(4)), Arrival(0.0, 100, 1))
    assert first(jobs[4]) == pytest.approx(min(end(job) for job in jobs[:4]) + 0.1 + 0.1)


def test_requests_wait_for_room_in_the_kv_cache_and_one_that_never_fits_runs_alone() -> None:
    large, small = served(Arrival(0.0, 9000, 900), Arrival(0.0, 200, 1))
    assert first(small) == pytest.approx(end(large) + 0.2 + 0.1)
    (huge,) = served(Arrival(0.0, 20_000, 2))
    assert end(huge) > 20


def test_half_the_speed_takes_twice_the_time() -> None:
    slow = Hardware(speed=0.5, slots=4, prefill=1000.0, base=0.1, itl=0.02)
    (job,) = served(Arrival(0.0, 1000, 11), hardware=slow)
    assert first(job) == pytest.approx(2.2)
    assert end(job) == pytest.approx(2.2 + 0.4)


def test_an_engine_tells_its_queue_and_its_memory_as_engines_do() -> None:
    engine = Engine(HARDWARE, BLOCK)
    for number in range(6):
        engine.submit(Job(number, Arrival(0.0, 900, 100), 0.0), 0.0)
    assert (engine.in_flight, engine.waiting, engine.kv_usage) == (6, 5, 0.09)
    while engine.next_event() < 1.95:
        engine.advance(engine.next_event())
    generated = 0.9 / 0.02
    assert engine.waiting == 3
    assert 10_000 * engine.kv_usage == pytest.approx(3 * 900 + generated)
    while engine.next_event() < inf:
        engine.advance(engine.next_event())
    assert engine.kv_usage == pytest.approx(0.0)


@pytest.mark.parametrize("rate", [0.5, 2.0, 4.0])
def test_it_agrees_with_the_engine_that_goes_token_by_token(rate: float) -> None:
    rng = Random(3)
    at = 0.0
    arrivals = []
    for _ in range(60):
        at += rng.expovariate(rate)
        arrivals.append(Arrival(at, rng.randint(50, 3000), rng.randint(1, 200)))
    hardware = Hardware(slots=8, prefill=6000.0, kv_tokens=20_000, cache_tokens=0)
    jobs = served(*arrivals, hardware=hardware)
    exact = stepped(arrivals, hardware)
    for job, (first_at, ended_at) in zip(jobs, exact, strict=True):
        assert first(job) == pytest.approx(first_at, rel=0.02, abs=0.1)
        assert end(job) == pytest.approx(ended_at, rel=0.02, abs=0.15)


def stepped(arrivals: list[Arrival], hardware: Hardware) -> list[tuple[float, float]]:
    """Return when the first and the last token of each request came from the model server's engine."""
    profile = Profile(
        max_num_seqs=hardware.slots,
        prefill_tokens_per_second=hardware.prefill,
        ttft_base=hardware.base,
        itl=hardware.itl,
        itl_growth=hardware.itl_growth,
        jitter=0.0,
        kv_tokens=hardware.kv_tokens,
        prefix_cache_tokens=0,
    )
    engine = StepEngine(profile)
    times: dict[str, list[float]] = {str(number): [] for number in range(len(arrivals))}

    def run_until(end_at: float) -> None:
        while (due := engine.next_event()) <= end_at:
            for token in engine.advance(due):
                times[token.sequence.id].append(due)

    for number, arrival in enumerate(arrivals):
        run_until(arrival.at)
        sequence = Sequence(str(number), b"x", arrival.output, prompt_tokens=arrival.prompt)
        engine.submit(sequence, arrival.at)
    run_until(1e9)
    return [(each[0], each[-1]) for each in times.values()]


@pytest.mark.parametrize("slots", [1000, 3])
def test_it_can_be_said_when_a_first_token_will_come_if_nothing_is_sent_later(slots: int) -> None:
    rng = Random(1)
    engine = Engine(Hardware(slots=slots, prefill=1000.0, speed=0.5), BLOCK)
    now, said = 0.0, []
    for number in range(60):
        now += rng.expovariate(1.0)
        while engine.next_event() <= now:
            engine.advance(engine.next_event())
        chain = (*range(rng.randrange(8)), 100 + number)
        job = Job(number, Arrival(now, len(chain) * BLOCK + rng.randrange(BLOCK), 30, chain), now)
        said.append((job, engine.first_token_at(job.arrival, now)))
        engine.submit(job, now)
    while engine.next_event() < inf:
        engine.advance(engine.next_event())
    # A later request shares the batch, and an earlier one may give its slot a little later for that.
    assert [first(job) for job, _ in said] == pytest.approx([at for _, at in said], abs=0.0 if slots > 3 else 0.3)
    assert max(at - job.sent_at for job, at in said) > 1.5, "some had to wait"
    assert sum(job.cached > 0 for job, _ in said) > 20
