"""Requests that wait for a slot: whose turn it is, who is refused, and that no slot stays free while somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.core.world import BOOT, MODEL, OTHER, pick, pod, refusal, refused, router, see, server, status

from tailrace.core.meter import Notes, Work
from tailrace.core.model import (
    EndpointGone,
    EndpointSpec,
    ModelSpec,
    Outcome,
    Pick,
    Reading,
    Refusal,
    RefusalCode,
    Request,
    ServerGone,
    ServerSeen,
    ServerSpec,
    Snapshot,
    Standing,
    Traits,
)
from tailrace.core.prefill import BACKLOG_SECONDS
from tailrace.core.queue import Waiting
from tailrace.core.registry import Target
from tailrace.core.router import Router

NOW = BOOT + 1
TTFT = "LeastEstimatedTTFT"


def queued(strategy: str = "WeightedLeastConnections", *, size: int = 10, seconds: float = 30.0) -> ServerSpec:
    """Return a server whose pool has a queue, of a model with an adapter."""
    made = server("s", ModelSpec(MODEL, (), ("lora",)), strategy=strategy)
    return replace(made, pool=replace(made.pool, queue_size=size, queue_seconds=seconds))


def asks(tokens: int = 1, **more: object) -> Request:
    return Request(MODEL, tokens, patient=True)._replace(**more)  # type: ignore[arg-type]


@dataclass
class Desk:
    """Puts requests in lines, and notes who was answered what, in order."""

    of: Router
    answers: list[tuple[str, Pick | Refusal]] = field(default_factory=list)
    waits: dict[str, Waiting] = field(default_factory=dict)

    def line_up(self, name: str, request: Request | None = None, now: float = NOW) -> None:
        """Be refused a slot, and wait."""
        asked = request or asks()
        assert refused(self.of, now, asked) is RefusalCode.SATURATED
        entered = self.of.wait(asked, now, self.noting(name))
        assert isinstance(entered, Waiting)
        self.waits[name] = entered

    def noting(self, name: str) -> Callable[[Pick | Refusal], None]:
        return lambda answer: self.answers.append((name, answer))

    @property
    def served(self) -> list[str]:
        return [name for name, answer in self.answers if isinstance(answer, Pick)]


def full(*, capacity: int = 1, spec: ServerSpec | None = None, pods: int = 1) -> tuple[Desk, list[Pick]]:
    """Return a desk before endpoints that are all full, and what fills them."""
    of = router(*(pod(f"p{n}", capacity=capacity) for n in range(pods)), servers=(spec or queued(),))
    return Desk(of), [pick(of, NOW) for _ in range(capacity * pods)]


def test_who_waits_is_served_in_order_as_slots_are_freed() -> None:
    desk, held = full(capacity=2)
    for name in "abc":
        desk.line_up(name)
    assert desk.of.waiting() == desk.of.status().waiting == {f"ns/{MODEL}": 3}
    assert desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW + 1)
    assert desk.served == ["a"]
    desk.of.release(held[1].attempt, Outcome.CLIENT_GONE, NOW + 2)
    assert desk.served == ["a", "b"]
    assert status(desk.of, "p0").in_flight == 2, "a turn is a pick: its slot is taken at once"
    assert desk.of.waiting() == {f"ns/{MODEL}": 1}


def test_nobody_overtakes_even_by_a_door_that_does_not_wait() -> None:
    desk, held = full(pods=2)
    desk.line_up("a", asks(subset=frozenset({"p0:8000"})))
    desk.of.release(held[1].attempt, Outcome.COMPLETED, NOW)
    free_elsewhere = pick(desk.of, NOW)
    assert free_elsewhere.uid == held[1].uid, "who may go where the first of another line may not, goes"
    late = refusal(desk.of, NOW, Request(MODEL, subset=frozenset({"p0:8000"})))
    assert late.code is RefusalCode.SATURATED
    assert "1 request waits for an endpoint of the model" in late.message


def test_a_new_request_of_the_same_line_is_refused_while_others_wait() -> None:
    desk, held = full()
    desk.line_up("a")
    desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW)
    desk.line_up("b")
    desk.line_up("c")
    assert desk.served == ["a"]
    assert "2 requests wait for an endpoint of the model" in refusal(desk.of, NOW).message


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (asks(5000), asks(10)),
        (asks(avoid=frozenset({"small"})), asks()),
        (asks(subset=frozenset({"big:8000"})), asks()),
    ],
)
def test_a_line_for_one_endpoint_holds_up_no_other(first: Request, then: Request) -> None:
    of = router(pod("big", capacity=1, memory=80), pod("small", capacity=1, memory=24), servers=(queued(),))
    held = {got.uid: got for got in (pick(of, NOW), pick(of, NOW))}
    desk = Desk(of)
    desk.line_up("first", first)
    desk.line_up("then", then)
    of.release(held["small"].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == ["then"]
    of.release(held["big"].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == ["then", "first"]


def test_hard_sessions_wait_for_their_endpoints_in_lines_of_their_own() -> None:
    spec = queued("SessionAffinity")
    spec = replace(spec, pool=replace(spec.pool, hard_sessions=True))
    of = router(pod("p0", capacity=1), pod("p1", capacity=1), servers=(spec,))
    held = {}
    for name in "ab":
        got = of.acquire(asks(traits=Traits(session=name)), NOW)
        assert isinstance(got, Pick)
        held[name] = got
    desk = Desk(of)
    for name in "ab":
        desk.line_up(name, asks(traits=Traits(session=name)))
    of.release(held["b"].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == ["b"], "a waits for another endpoint"


def hard(*pods: EndpointSpec, size: int = 1000) -> Desk:
    """Return a desk of hard sessions."""
    spec = queued("SessionAffinity", size=size)
    return Desk(router(*pods, servers=(replace(spec, pool=replace(spec.pool, hard_sessions=True)),)))


def in_session(desk: Desk, name: str, now: float = NOW) -> Pick | Refusal:
    return desk.of.acquire(asks(traits=Traits(session=name)), now)


def test_a_session_goes_elsewhere_where_its_endpoint_is_not_allowed() -> None:
    desk = hard(pod("p0"), pod("p1"))
    first = in_session(desk, "a")
    assert isinstance(first, Pick)
    (other,) = {"p0", "p1"} - {first.uid}
    then = desk.of.acquire(asks(traits=Traits(session="a"), subset=frozenset({f"{other}:8000"})), NOW)
    assert isinstance(then, Pick)
    assert then.uid == other


def test_a_free_slot_is_offered_to_no_session_that_waits_for_another_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = hard(pod("p0", capacity=200), pod("p1", capacity=200))
    held = {str(n): in_session(desk, str(n)) for n in range(400)}
    for name in held:
        desk.line_up(name, asks(traits=Traits(session=name)))
    looks: list[Request] = []
    pick_of = desk.of._queue._pick

    def noting(target: Target, request: Request, now: float) -> Pick | None:
        looks.append(request)
        return pick_of(target, request, now)

    monkeypatch.setattr(desk.of._queue, "_pick", noting)
    desk.of.tick(NOW)
    assert looks == [], "nothing is free"
    some = held["7"]
    assert isinstance(some, Pick)
    desk.of.release(some.attempt, Outcome.COMPLETED, NOW)
    first = next(name for name, got in held.items() if isinstance(got, Pick) and got.uid == some.uid)
    assert (desk.served, len(looks)) == ([first], 1)


def test_a_hard_session_whose_endpoint_goes_is_served_elsewhere() -> None:
    desk = hard(pod("p0", capacity=1), pod("p1", capacity=2))
    first = in_session(desk, "a")
    assert isinstance(first, Pick)
    for n in range(4):
        in_session(desk, f"more-{n}")
    desk.line_up("a", asks(traits=Traits(session="a")))
    see(desk.of, NOW, pod("new", capacity=2))
    assert desk.served == []
    see(desk.of, NOW, pod(first.uid, capacity=2, version=2, ready=False))
    assert desk.served == ["a"]


def test_a_hard_session_that_its_endpoint_failed_does_not_wait_for_that_endpoint() -> None:
    desk = hard(pod("p0", capacity=1), pod("p1", capacity=1))
    first = in_session(desk, "a")
    assert isinstance(first, Pick)
    then = desk.of.acquire(asks(traits=Traits(session="a"), avoid=frozenset({first.uid})), NOW)
    assert isinstance(then, Pick)
    assert then.uid != first.uid


def test_who_was_sent_already_goes_before_who_came_later_and_not_before_who_came_earlier() -> None:
    desk, held = full(pods=3)
    desk.line_up("first", asks(subset=frozenset({"p0:8000", "p1:8000", "p2:8000"})), NOW)
    desk.line_up("last", now=NOW + 2)
    desk.of.wait(asks(avoid=frozenset({"elsewhere"})), NOW + 3, desk.noting("again"), NOW + 1)
    for each in held:
        desk.of.release(each.attempt, Outcome.COMPLETED, NOW + 3)
    assert desk.served == ["first", "again", "last"]


def test_of_two_lines_the_one_that_has_waited_longest_goes_first() -> None:
    desk, held = full(pods=2)
    everywhere = frozenset({"p0:8000", "p1:8000"})
    desk.line_up("a", asks(subset=everywhere), NOW)
    desk.line_up("b", asks(), NOW + 1)
    desk.line_up("c", asks(subset=everywhere), NOW + 2)
    for got in held:
        desk.of.release(got.attempt, Outcome.COMPLETED, NOW + 3)
    assert desk.served == ["a", "b"]


def test_of_two_lines_neither_takes_all_slots_that_are_freed_at_once() -> None:
    desk, _ = full(pods=2)
    everywhere = frozenset({"p0:8000", "p1:8000", "new:8000"})
    for number, (name, subset) in enumerate([("a", everywhere), ("b", None), ("c", everywhere), ("d", None)]):
        desk.line_up(name, asks(subset=subset), NOW + number)
    see(desk.of, NOW + 4, pod("new", capacity=3))
    assert desk.served == ["a", "b", "c"]


def test_who_was_sent_already_waits_also_where_the_queue_is_full() -> None:
    desk, held = full(pods=2, spec=queued(size=1))
    desk.line_up("new")
    desk.line_up("again", asks(avoid=frozenset({"elsewhere"})), NOW + 1)
    for each in held:
        desk.of.release(each.attempt, Outcome.COMPLETED, NOW + 2)
    assert desk.served == ["new", "again"]


def test_an_engine_that_declines_at_once_does_not_have_everybody_wait() -> None:
    desk, _ = full(pods=2, spec=queued(size=3))
    declined = asks(avoid=frozenset({"elsewhere"}))
    for n in range(5):
        desk.line_up(str(n), declined)
    last = desk.of.wait(declined, NOW, desk.noting("last"))
    assert isinstance(last, Refusal), "3, and 2 that can have been sent"
    assert last.code is RefusalCode.SATURATED


def test_so_many_wait_and_one_more_is_refused_with_how_long_that_takes() -> None:
    desk, _ = full(spec=queued(size=2))
    desk.line_up("a")
    desk.line_up("b")
    third = desk.of.wait(asks(), NOW, desk.noting("c"))
    assert isinstance(third, Refusal)
    assert third.code is RefusalCode.SATURATED
    assert third.retry_after == 3, "two before it and its own, one a second before anything is known"
    desk.of.leave(desk.waits["a"])
    desk.line_up("c")


@pytest.mark.parametrize("avoid", [frozenset(), frozenset({"elsewhere"})])
def test_without_a_queue_nobody_waits(avoid: frozenset[str]) -> None:
    desk, _ = full(spec=queued(size=0))
    answer = desk.of.wait(asks(avoid=avoid), NOW, desk.noting("a"))
    assert isinstance(answer, Refusal)
    assert answer.message == refusal(desk.of, NOW).message


def test_who_leaves_is_not_answered_and_may_leave_twice() -> None:
    desk, held = full()
    desk.line_up("a")
    desk.line_up("b")
    desk.of.leave(desk.waits["a"])
    desk.of.leave(desk.waits["a"])
    desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == ["b"]
    assert desk.of.waiting() == {}


def test_who_has_waited_long_enough_is_told_why_and_when_to_come_again() -> None:
    desk, _ = full(spec=queued(seconds=7.0))
    desk.line_up("a")
    assert desk.waits["a"].until == NOW + 7
    answer = desk.of.give_up(desk.waits["a"], NOW + 7)
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.WAITED_OUT
    assert "within 7 s" in answer.message
    assert answer.retry_after == 1
    assert desk.of.waiting() == {}


def test_who_has_waited_long_enough_for_endpoints_that_are_gone_is_told_that() -> None:
    desk, _ = full()
    desk.line_up("a")
    desk.of.apply(EndpointGone("p0"), NOW)
    answer = desk.of.give_up(desk.waits["a"], NOW + 30)
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.NO_ENDPOINTS


def test_an_endpoint_that_comes_serves_who_waits() -> None:
    desk, _ = full()
    desk.line_up("a")
    see(desk.of, NOW, pod("new", ready=False))
    assert desk.served == []
    see(desk.of, NOW, pod("new", version=2))
    assert desk.served == ["a"]


def test_an_endpoint_that_drains_gets_none_of_those_who_wait() -> None:
    desk, held = full(pods=2)
    desk.line_up("a")
    see(desk.of, NOW, pod(held[0].uid, capacity=1, version=2, deleted_at=NOW))
    desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == []
    desk.of.release(held[1].attempt, Outcome.COMPLETED, NOW)
    assert [answer.uid for _, answer in desk.answers if isinstance(answer, Pick)] == [held[1].uid]


def test_more_capacity_serves_who_waits() -> None:
    desk, _ = full()
    desk.line_up("a")
    see(desk.of, NOW, pod("p0", capacity=2, version=2))
    assert desk.served == ["a"]


def test_a_replica_that_leaves_its_share_behind_serves_who_waits() -> None:
    of = router(pod("p0", capacity=2), servers=(queued(),), members=frozenset({OTHER}))
    pick(of, NOW)
    desk = Desk(of)
    desk.line_up("a")
    of.set_members(frozenset(), NOW)
    of.tick(NOW)
    assert desk.served == ["a"]


def test_a_lease_that_runs_out_serves_who_waits_at_the_next_tick() -> None:
    of = router(pod("p0", capacity=1), servers=(queued(),))
    leased = pick(of, NOW, leased=True)
    assert leased.expires_at is not None
    desk = Desk(of)
    desk.line_up("a")
    of.tick(leased.expires_at - 1)
    assert desk.served == []
    of.tick(leased.expires_at)
    assert desk.served == ["a"]


def test_a_model_that_nobody_serves_any_more_is_not_waited_for() -> None:
    desk, _ = full()
    desk.line_up("a")
    desk.line_up("b", asks(subset=frozenset({"p0:8000"})))
    desk.of.apply(ServerGone("ns/s"), NOW)
    codes = [answer.code for _, answer in desk.answers if isinstance(answer, Refusal)]
    assert codes == [RefusalCode.UNKNOWN_MODEL] * 2
    late = desk.of.give_up(desk.waits["a"], NOW)
    assert isinstance(late, Refusal)
    assert late.code is RefusalCode.UNKNOWN_MODEL
    assert desk.of.waiting() == {}


def test_a_change_of_the_server_loses_nobody() -> None:
    desk, held = full()
    desk.line_up("a")
    desk.of.apply(ServerSeen(replace(queued(TTFT), created_at=1.0)), NOW)
    desk.of.apply(Snapshot((queued(TTFT),), (pod("p0", capacity=1, version=3),)), NOW)
    desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == ["a"]


def test_a_replica_that_closes_goes_on_serving_who_waits_until_it_dismisses_them() -> None:
    desk, held = full()
    desk.line_up("a")
    desk.line_up("b")
    desk.of.close()
    desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW)
    assert desk.served == ["a"]
    desk.of.dismiss()
    (name, answer) = desk.answers[-1]
    assert name == "b"
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.SHUTTING_DOWN
    assert desk.of.waiting() == {}
    late = desk.of.wait(asks(avoid=frozenset({"elsewhere"})), NOW, desk.noting("late"))
    assert isinstance(late, Refusal)
    assert late.code is RefusalCode.SHUTTING_DOWN


def test_a_pick_is_explained_with_who_waits_before_it() -> None:
    desk, _ = full()
    told = desk.of.explain(Request(MODEL), NOW)
    assert (told.waiting, told.would_wait) == (0, True)
    desk.line_up("a")
    told = desk.of.explain(Request(MODEL), NOW)
    assert (told.waiting, told.would_wait) == (1, True)


def test_a_pick_is_explained_as_none_while_others_wait_for_the_same_and_with_the_queue_when_it_is_full() -> None:
    desk, _ = busy(queued(TTFT, size=2))
    impatient = Request(MODEL)
    assert desk.of.explain(impatient, NOW).candidates[0].standing is Standing.PICKED
    for name in "ab":
        assert desk.of.explain(impatient, NOW).would_wait
        desk.line_up(name)
        told = desk.of.explain(impatient, NOW)
        assert told.refusal == refusal(desk.of, NOW)
        assert {each.standing for each in told.candidates} == {Standing.COMPARED}
    assert not told.would_wait


def test_a_pick_is_explained_without_a_queue() -> None:
    desk, held = full(spec=queued(size=0))
    assert not desk.of.explain(Request(MODEL), NOW).would_wait
    desk.of.release(held[0].attempt, Outcome.COMPLETED, NOW)
    assert not desk.of.explain(Request(MODEL), NOW).would_wait


# LeastEstimatedTTFT has requests wait for the endpoint that is done first


def prompts(of: Router, tokens: int, count: int) -> list[Pick]:
    """Send streamed prompts of so many tokens, without waiting."""
    traits = Traits(tokens, streams=True)
    got = [of.acquire(Request(MODEL, 1, traits=traits), NOW) for _ in range(count)]
    return [each for each in got if isinstance(each, Pick)]


def backlog(of: Router) -> int:
    """Return the tokens with which an idle endpoint has a little more than enough to do."""
    endpoint = next(iter(of._registry.endpoints.values()))
    (_, _, pool), *_ = of._registry.pools()
    return int(BACKLOG_SECONDS * pool.notes.speed(endpoint, NOW)) + 100  # type: ignore[attr-defined]


def learnt(of: Router) -> None:
    """Let every endpoint have been seen to read prompts for a while, as fast as was guessed."""
    (_, _, pool), *_ = of._registry.pools()
    for each in of._registry.endpoints.values():
        each.meter.prefill.see(pool.notes.speed(each, NOW), 1.0, NOW)  # type: ignore[attr-defined]


def busy(spec: ServerSpec | None = None) -> tuple[Desk, list[Pick]]:
    """Return a desk before two endpoints with free slots, each with enough to do."""
    of = router(pod("p0", capacity=8), pod("p1", capacity=8), servers=(spec or queued(TTFT),))
    learnt(of)
    return Desk(of), prompts(of, backlog(of), 2)


def test_nobody_waits_because_of_a_guess() -> None:
    of = router(pod("p0", capacity=8), servers=(queued(TTFT),))
    prompts(of, backlog(of), 2)
    assert isinstance(of.acquire(asks(), NOW), Pick)
    learnt(of)
    assert isinstance(of.acquire(asks(), NOW), Refusal)


def test_a_request_waits_while_every_endpoint_has_enough_to_do() -> None:
    desk, held = busy()
    assert {got.uid for got in held} == {"p0", "p1"}
    streamed = asks(traits=Traits(100, streams=True))
    assert desk.of.explain(streamed, NOW).would_wait
    desk.line_up("a", streamed)
    desk.of.first_byte(held[1].attempt, NOW + 0.1)
    (name, answer), *_ = desk.answers
    assert isinstance(answer, Pick)
    assert (name, answer.uid) == ("a", held[1].uid), "it goes to whoever was done first"
    assert not desk.of.explain(streamed, NOW + 0.1).would_wait


def test_time_that_goes_by_is_work_that_is_done() -> None:
    desk, _ = busy()
    desk.line_up("a")
    desk.of.tick(NOW + 0.001)
    assert desk.served == []
    desk.of.tick(NOW + BACKLOG_SECONDS)
    assert desk.served == ["a"]


def test_who_has_waited_long_enough_takes_any_free_slot() -> None:
    desk, _ = busy()
    desk.line_up("a")
    assert isinstance(desk.of.give_up(desk.waits["a"], NOW + 0.001), Pick)


@pytest.mark.parametrize("size", [0, 10])
def test_only_who_may_wait_has_to(size: int) -> None:
    desk, _ = busy(queued(TTFT, size=size))
    assert isinstance(desk.of.acquire(Request(MODEL), NOW), Pick)
    patient = desk.of.acquire(asks(), NOW)
    assert isinstance(patient, Refusal if size else Pick)


def test_one_endpoint_with_little_to_do_is_enough() -> None:
    desk, held = busy()
    desk.of.first_byte(held[0].attempt, NOW + 0.1)
    got = desk.of.acquire(asks(), NOW + 0.1)
    assert isinstance(got, Pick)
    assert got.uid == held[0].uid


def test_a_backup_is_not_used_while_others_only_have_enough_to_do() -> None:
    desk, _ = busy()
    see(desk.of, NOW, replace(pod("spare"), backup=True))
    desk.line_up("a")
    assert desk.served == []


def test_an_endpoint_that_is_late_by_itself_is_not_given_one_request_after_the_other() -> None:
    """First bytes come after three seconds, however much is asked for: that is no backlog."""
    desk = Desk(router(pod("p0", capacity=64), servers=(queued(TTFT, size=1000),)))
    due: list[tuple[float, Pick]] = []
    for step in range(200):
        now = NOW + 0.25 * step
        while due and due[0][0] <= now:
            pick_of = due.pop(0)[1]
            desk.of.first_byte(pick_of.attempt, now)
            desk.of.release(pick_of.attempt, Outcome.COMPLETED, now)
        desk.of.tick(now)
        asked = asks(traits=Traits(1000, streams=True))
        got = desk.of.acquire(asked, now)
        if isinstance(got, Pick):
            desk.answers.append(("", got))
        else:
            desk.of.wait(asked, now, desk.noting(""))
        due += [(now + 3.0, each) for _, each in desk.answers if isinstance(each, Pick)]
        desk.answers.clear()
        assert desk.of.waiting().get(f"ns/{MODEL}", 0) <= 16, "nobody waits for long"


def test_prompts_that_an_engine_never_answers_hold_up_nobody_for_long() -> None:
    desk, _ = busy()
    see(desk.of, NOW, pod("p0", capacity=8, version=2, ready=False))
    prompts(desk.of, 10 * backlog(desk.of), 3)
    desk.line_up("a")
    desk.of.tick(NOW + 7)
    assert desk.served == []
    desk.of.tick(NOW + 9)
    assert desk.served == ["a"]


def test_an_idle_endpoint_is_not_looked_for_twice_in_a_moment() -> None:
    desk, _ = busy()
    (_, _, pool), *_ = desk.of._registry.pools()
    for _ in range(2):
        assert isinstance(desk.of.acquire(asks(), NOW), Refusal)
    assert pool.scans == 1


def test_nobody_waits_while_an_endpoint_is_idle_that_was_not_compared() -> None:
    pods = [replace(pod(f"p{n}", capacity=8), gpu_tflops=100 * 2 ** (n // 4)) for n in range(20)]
    of = router(*pods, servers=(queued(TTFT),))
    learnt(of)
    for endpoint in list(of._registry.endpoints.values())[:19]:
        endpoint.meter.wait(Work(endpoint, Notes(), Request(MODEL), NOW), 10_000_000)
        endpoint.refresh()
    got = of.acquire(asks(traits=Traits(100, streams=True)), NOW)
    assert isinstance(got, Pick)
    assert got.uid == "p19"


def test_nobody_waits_for_an_adapter_to_be_free_where_another_endpoint_is_idle() -> None:
    of = router(pod("p0", capacity=8), pod("p1", capacity=8), servers=(queued(TTFT),))
    learnt(of)
    of.engine_told("p0", Reading(adapters=frozenset({"lora"})), NOW)
    first = of.acquire(Request("lora", 1, traits=Traits(2 * backlog(of), streams=True)), NOW)
    assert isinstance(first, Pick)
    then = of.acquire(asks(model="lora", traits=Traits(100, streams=True)), NOW)
    assert isinstance(then, Pick)
    assert (first.uid, then.uid) == ("p0", "p1")


# The rule that everything else serves


@dataclass
class Play:
    """A random life of a queue before three endpoints."""

    chance: Random
    desk: Desk
    now: float = NOW
    version: int = 1
    lined_up: list[str] = field(default_factory=list)
    """Who has entered and did not leave, in order."""

    def arrive(self) -> None:
        asked = asks(traits=Traits(self.chance.choice([10, 20_000]), streams=True))
        answer = self.desk.of.acquire(asked, self.now)
        if isinstance(answer, Pick):
            self.desk.answers.append(("", answer))
            return
        name = str(len(self.desk.waits))
        entered = self.desk.of.wait(asked, self.now, self.desk.noting(name))
        if isinstance(entered, Waiting):
            self.desk.waits[name] = entered
            self.lined_up.append(name)

    def end(self) -> None:
        if held := self._held():
            outcome = self.chance.choice([Outcome.COMPLETED, Outcome.FAILED])
            self.desk.of.release(self.chance.choice(held), outcome, self.now)

    def begin(self) -> None:
        if held := self._held():
            self.desk.of.first_byte(self.chance.choice(held), self.now)

    def leave(self) -> None:
        if name := self._drop():
            self.desk.of.leave(self.desk.waits[name])

    def give_up(self) -> None:
        if name := self._drop():
            answer = self.desk.of.give_up(self.desk.waits[name], self.now)
            self.desk.answers += [("", answer)] if isinstance(answer, Pick) else []

    def change(self) -> None:
        self.version += 1
        uid, ready = f"p{self.chance.randrange(3)}", self.chance.random() < 0.7
        see(self.desk.of, self.now, pod(uid, capacity=2, version=self.version, ready=ready))

    def check(self, *, learns: bool) -> None:
        if learns:
            self.desk.of.tick(self.now)  # what is learnt of one endpoint may be news of another
        served = [name for name in self.desk.served if name]
        assert served == self.lined_up[: len(served)], "first come, first served, and once"
        left = self.lined_up[len(served) :]
        assert self.desk.of.waiting() == ({f"ns/{MODEL}": len(left)} if left else {})
        if left:
            request = self.desk.waits[left[0]].request
            (_, _, pool), *_ = self.desk.of._registry.pools()
            found = pool.foresee(request.tokens, None, request.avoid, request, self.now).compared
            assert not found or pool.holds(found, self.now), "a slot is free, and somebody waits"
        assert all(each.in_flight <= 2 for each in self.desk.of.status().endpoints)

    def _held(self) -> list[str]:
        picks = [answer for _, answer in self.desk.answers if isinstance(answer, Pick)]
        return [each.attempt for each in picks if each.attempt in self.desk.of._ledger._attempts]

    def _drop(self) -> str:
        waiting = self.lined_up[len([name for name in self.desk.served if name]) :]
        if not waiting:
            return ""
        name = self.chance.choice(waiting)
        self.lined_up.remove(name)
        return name


STEPS = [*[Play.arrive] * 4, *[Play.end] * 3, Play.begin, Play.begin, Play.leave, Play.give_up, Play.change]


@given(st.integers(0, 10_000), st.sampled_from(["WeightedLeastConnections", "PowerOfTwoChoices", "LeastTokens", TTFT]))
def test_no_slot_stays_free_and_nobody_is_forgotten_whatever_happens(seed: int, strategy: str) -> None:
    """After every step: who waits could not be served now; each is answered at most once, in the order of its line."""
    desk = Desk(router(*(pod(f"p{n}", capacity=2) for n in range(3)), servers=(queued(strategy),)))
    if strategy == TTFT:
        learnt(desk.of)
    play = Play(Random(seed), desk)
    for _ in range(60):
        play.now += play.chance.choice([0.0, 0.01, 0.5])
        desk.of.tick(play.now)
        play.chance.choice(STEPS)(play)
        play.check(learns=strategy == TTFT)
