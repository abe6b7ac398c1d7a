"""The control loop with the real core and far sides that only take notes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from random import Random

import pytest
from tests.app.waiting import eventually

from tailrace.changes import Changes
from tailrace.control import TICK_SECONDS, Control, _worst
from tailrace.core.drain import Mark
from tailrace.core.model import (
    Deletion,
    DrainOutcome,
    DrainSpec,
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    EndpointState,
    Grade,
    ModelSpec,
    Outcome,
    Pick,
    PoolQuality,
    PoolSettings,
    Request,
    ServerSpec,
    Snapshot,
)
from tailrace.core.router import Router
from tailrace.link import Desired, EndpointReport

PROMPT = 0.05
"""Seconds that are far less than a tick; the spec gives a finalizer one second to go. Time is virtual here."""

SERVER = ServerSpec("shop/llama", "shop", (ModelSpec("m"),), engine="sglang")
START = 1_800_000_000.0


def pod(uid: str = "a", **more: object) -> EndpointSpec:
    settled = {"drain": DrainSpec(timeout=60.0, settle=0.0), "ready": True} | more
    return EndpointSpec(uid, SERVER.key, f"pod-{uid}", f"10.0.0.1:{ord(uid)}", capacity=4, **settled)  # type: ignore[arg-type]


class World:
    """A replica's core with its control loop, and notes of what the loop did."""

    def __init__(self, *, alone: bool = True) -> None:
        self.changes = Changes()
        self.router = Router("replica", booted_at=START, rng=Random(1), alone=alone)
        self.router.on_change = self.changes.notify
        self.cuts: list[set[str]] = []
        self.desires: list[Desired] = []
        self.asked: list[tuple[str, str]] = []
        self.gates: frozenset[str] = frozenset()
        self.broken: set[str] = set()
        self.idle: bool | None = True
        self.elsewhere: dict[str, int] = {}
        self.marked: list[tuple[str, str]] = []
        self.rounds = 0
        self.control = Control(
            self.router,
            self.clock,
            self.changes,
            cut=self.cut,
            desire=self.desire,
            gates_seen=self.gates_seen,
            ask=self.ask,
            mark=self.mark,
            elsewhere=lambda uid: self.elsewhere.get(uid, 0),
        )

    def mark(self, uid: str, mark: Mark) -> None:
        self.marked.append((uid, mark.key))

    def clock(self) -> float:
        return START + asyncio.get_running_loop().time()

    def cut(self, attempts: Iterable[str]) -> None:
        self.cuts.append(set(attempts))
        self._break("cut")
        for attempt in self.cuts[-1]:
            self.router.release(attempt, Outcome.CUT, self.clock())

    def desire(self, desired: Desired) -> None:
        self._break("desire")
        self.desires.append(desired)

    def gates_seen(self) -> frozenset[str]:
        self._break("gates")
        return self.gates

    async def ask(self, address: str, engine: str) -> bool | None:
        self.asked.append((address, engine))
        self._break("ask")
        return self.idle

    def _break(self, part: str) -> None:
        if part in self.broken:
            raise LookupError(f"{part} is broken")

    def see(self, *pods: EndpointSpec) -> None:
        self.router.apply(Snapshot((SERVER,), pods), self.clock())

    def delete(self, spec: EndpointSpec, within: float = 60.0) -> None:
        now = self.clock()
        self.router.apply(EndpointSeen(replace(spec, deletion=Deletion(now, now + within))), now)

    def request(self) -> str:
        pick = self.router.acquire(Request("m"), self.clock())
        assert isinstance(pick, Pick)
        return pick.attempt

    @property
    def reports(self) -> tuple[EndpointReport, ...]:
        return (self.desires[-1].endpoints or ()) if self.desires else ()

    @property
    def released(self) -> dict[str, DrainOutcome]:
        return {release.uid: release.outcome for release in self.desires[-1].releases} if self.desires else {}


def count_rounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    once = world.control.round

    def counted() -> bool:
        world.rounds += 1
        return once()

    monkeypatch.setattr(world.control, "round", counted)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Yield a world whose loop runs."""
    world = World()
    count_rounds(world, monkeypatch)
    task = asyncio.create_task(world.control.run())
    await asyncio.sleep(0)
    yield world
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert [other for other in asyncio.all_tasks() if other is not asyncio.current_task()] == []


# What is desired


async def test_a_drain_that_is_over_is_desired_promptly(world: World) -> None:
    world.see(pod())
    attempt = world.request()
    world.delete(pod())
    await asyncio.sleep(0.1)
    assert world.released == {}
    world.router.release(attempt, Outcome.COMPLETED, world.clock())
    await eventually(lambda: world.released == {"a": DrainOutcome.DRAINED}, PROMPT)


async def test_a_drain_is_over_when_its_settle_time_has_passed_without_any_news(world: World) -> None:
    spec = pod(drain=DrainSpec(settle=0.2))
    world.see(spec)
    world.delete(spec)
    began = world.clock()
    await eventually(lambda: world.released, 0.2 + PROMPT)
    assert world.clock() - began >= 0.2


async def test_a_release_is_desired_until_the_endpoint_is_gone(world: World) -> None:
    world.see(pod())
    world.delete(pod())
    await eventually(lambda: world.released == {"a": DrainOutcome.DRAINED}, PROMPT)
    world.router.apply(EndpointGone("a"), world.clock())
    await eventually(lambda: world.released == {}, PROMPT)


async def test_what_is_desired_is_said_once_and_again_only_when_it_changes(world: World) -> None:
    world.see(pod())
    await eventually(lambda: world.desires)
    await asyncio.sleep(1.5 * TICK_SECONDS)
    said = len(world.desires)
    for _ in range(5):
        world.changes.notify()
        await asyncio.sleep(0.05)
    assert len(world.desires) == said


async def test_counters_and_gates_are_reported_within_a_tick(world: World) -> None:
    world.see(pod())
    world.request()
    world.gates = frozenset({"a"})
    await asyncio.sleep(TICK_SECONDS + PROMPT)
    (report,) = world.reports
    assert (report.uid, report.server, report.state, report.gate_seen) == ("a", SERVER.key, EndpointState.READY, True)
    assert report.in_flight == 1


async def test_an_endpoint_that_goes_over_to_another_server_is_reported_anew(world: World) -> None:
    world.see(pod())
    await eventually(lambda: world.reports, 2 * TICK_SECONDS)
    world.see(replace(pod(), server="shop/other", version=2))
    await eventually(lambda: world.reports[0].server == "shop/other", 2 * TICK_SECONDS)


async def test_what_other_replicas_have_in_flight_counts_in_the_report(world: World) -> None:
    world.elsewhere = {"a": 3}
    world.see(pod())
    world.request()
    await eventually(lambda: world.reports, 2 * TICK_SECONDS)
    await eventually(lambda: world.reports[0].in_flight == 4, 2 * TICK_SECONDS)


# Deadlines


async def test_what_is_in_flight_past_the_deadline_is_cut(world: World) -> None:
    world.see(pod())
    attempts = {world.request(), world.request()}
    world.delete(pod(), within=0.2)
    await asyncio.sleep(0.1)
    assert world.cuts == []
    await eventually(lambda: world.released == {"a": DrainOutcome.DEADLINE}, 0.1 + PROMPT)
    assert world.cuts[0] == attempts
    assert world.desires[-1].releases[0].lost == 2


async def test_the_loop_wakes_at_the_earliest_deadline_and_not_a_tick_later(world: World) -> None:
    world.see(pod("a"), pod("b"))
    world.request()
    world.request()
    world.delete(pod("a"), within=30.0)
    world.delete(pod("b"), within=0.15)
    await eventually(lambda: "b" in world.released, 0.15 + PROMPT)


# Marks and members


async def test_a_gates_drain_is_marked_on_the_pod_again_and_again_until_the_mark_is_seen(world: World) -> None:
    spec = pod(created_at=START, incarnation="c1")
    world.see(spec)
    world.router.gate_calls("a", world.clock())
    await eventually(lambda: len(world.marked) >= 2, 4 * TICK_SECONDS)
    world.see(replace(spec, gate_mark="c1"))
    seen = len(world.marked)
    await asyncio.sleep(1.5 * TICK_SECONDS)
    assert world.marked == [("a", "gate/c1")] * seen


async def test_a_list_of_members_is_wanted_promptly_when_a_drain_begins() -> None:
    world = World(alone=False)
    task = asyncio.create_task(world.control.run())
    world.router.set_members(frozenset({"replica"}), world.clock(), answers=1)
    world.see(pod())
    await eventually(lambda: world.desires)
    world.delete(pod())
    await eventually(lambda: world.desires[-1].members_wanted == 2, PROMPT)
    assert world.released == {}
    world.router.set_members(frozenset({"replica"}), world.clock(), answers=2)
    await eventually(lambda: world.released == {"a": DrainOutcome.DRAINED}, PROMPT)
    task.cancel()
    await asyncio.wait([task])


# Questions


BEFORE = START - 100


async def test_an_engine_whose_requests_are_unknown_is_asked_until_it_was_idle_twice(world: World) -> None:
    world.see(pod(created_at=BEFORE))
    world.delete(pod(created_at=BEFORE))
    await eventually(lambda: world.released == {"a": DrainOutcome.DRAINED}, 5)
    assert world.asked == [("10.0.0.1:97", "sglang")] * 2
    await asyncio.sleep(1.2)
    assert len(world.asked) == 2


async def test_a_busy_engine_is_asked_again_and_again_but_one_question_at_a_time(world: World) -> None:
    world.idle = False
    world.see(pod(created_at=BEFORE))
    world.delete(pod(created_at=BEFORE))
    for _ in range(20):
        world.changes.notify()
        await asyncio.sleep(0.06)
    assert len(world.asked) == 2
    assert world.released == {}


async def test_questions_stop_when_the_endpoint_is_gone(world: World) -> None:
    world.idle = None
    world.see(pod(created_at=BEFORE))
    world.delete(pod(created_at=BEFORE))
    await eventually(lambda: world.asked)
    world.router.apply(EndpointGone("a"), world.clock())
    await eventually(lambda: not world.control._asking, 2.0)
    assert len(world.asked) == 1


async def test_an_engine_that_cannot_be_asked_is_asked_again_at_the_same_pace(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broken = {"ask"}
    world.see(pod(created_at=BEFORE))
    world.delete(pod(created_at=BEFORE))
    for _ in range(10):
        world.changes.notify()
        await asyncio.sleep(0.05)
    assert len(world.asked) == 1
    assert "could not ask the engine at 10.0.0.1:97" in caplog.text
    world.broken = set()
    await eventually(lambda: world.released == {"a": DrainOutcome.DRAINED}, 5)


# Trouble


async def test_a_round_that_fails_is_followed_by_others_which_catch_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broken = {"desire"}
    world.see(pod())
    world.delete(pod())
    await eventually(lambda: caplog.text.count("LookupError: desire is broken") >= 4)
    world.broken = set()
    await eventually(lambda: world.released == {"a": DrainOutcome.DRAINED}, 3 * TICK_SECONDS)


@pytest.mark.parametrize("part", ["cut", "gates"])
async def test_a_part_that_fails_does_not_keep_the_others_from_their_work(world: World, part: str) -> None:
    world.broken = {part}
    world.see(pod("a"), pod("b"))
    attempts = {world.request(), world.request()}
    world.delete(pod("a"), within=0.05)
    await eventually(lambda: world.cuts, 3 * TICK_SECONDS)
    assert world.cuts[0] < attempts
    world.delete(pod("b"), within=0.05)
    await eventually(lambda: set(world.released) == {"a", "b"}, 6 * TICK_SECONDS)


async def test_failing_rounds_do_not_spin(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.broken = {"cut"}
    world.see(pod())
    world.request()
    world.delete(pod(), within=0.0)
    await eventually(lambda: world.cuts)
    before = world.rounds
    await asyncio.sleep(1.0)
    assert world.rounds - before <= 3


# Rest


async def test_an_idle_loop_makes_one_round_a_tick(world: World) -> None:
    world.see(pod())
    world.request()
    await asyncio.sleep(0.2)
    before = world.rounds
    await asyncio.sleep(2.5 * TICK_SECONDS)
    assert 1 <= world.rounds - before <= 3


async def test_a_loop_with_a_drain_that_lasts_does_not_spin_either(world: World) -> None:
    world.see(pod())
    world.request()
    world.delete(pod(), within=60.0)
    await asyncio.sleep(0.2)
    before = world.rounds
    await asyncio.sleep(2.5 * TICK_SECONDS)
    assert world.rounds - before <= 3


async def test_a_burst_of_changes_is_a_few_rounds(world: World) -> None:
    await asyncio.sleep(0.1)
    before = world.rounds
    for _ in range(100):
        world.changes.notify()
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert 1 <= world.rounds - before <= 15


# How even pools are


async def test_a_poor_pool_is_told_once_it_has_stayed_so_and_its_change_of_strategy_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pool = PoolSettings(fallback="LeastRequests", fallback_after=120.0)
    pods = (pod("a"), pod("b"))
    world.router.apply(Snapshot((replace(SERVER, pool=pool),), pods), world.clock())
    for _ in range(3):
        world.router.acquire(Request("m", avoid=frozenset({"b"})), world.clock())
    await asyncio.sleep(80)
    assert not world.desires[-1].grades
    await asyncio.sleep(30)
    assert world.desires[-1].grades == ((SERVER.key, "Poor"),)
    assert not caplog.records
    await asyncio.sleep(60)
    assert "pool shop/m: the strategy is LeastRequests now, was LeastEstimatedTTFT" in caplog.text
    assert len(world.desires[-1].grades) == 0


def test_of_several_pools_of_a_server_the_worst_grade_counts() -> None:
    found = [
        PoolQuality("ns/x", ("ns/a", "ns/b"), "RoundRobin", Grade.GOOD),
        PoolQuality("ns/y", ("ns/b", "ns/c"), "RoundRobin", Grade.POOR),
        PoolQuality("ns/z", ("ns/d", "ns/b"), "RoundRobin", None),
    ]
    assert _worst(found) == (("ns/a", "Good"), ("ns/b", "Poor"), ("ns/c", "Poor"))
