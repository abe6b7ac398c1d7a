"""One request's life: each rule of the exchange, with a scripted router and with the real one."""

from dataclasses import dataclass, field

import pytest
from tests.core.world import BOOT, MODEL, pick, pod, router, see, status

from tailrace.core.exchange import (
    MAX_ATTEMPTS,
    MAX_UNREACHABLE,
    VERDICTS,
    Again,
    Exchange,
    Fail,
    Failure,
    Forward,
    Refuse,
    Wait,
)
from tailrace.core.model import Outcome, Pick, Refusal, RefusalCode, Request, Timeouts, Usage
from tailrace.core.queue import Answer, Goal, Kind, Line, Waiting
from tailrace.core.router import Router

NOW = BOOT + 1
LINE = Line(Kind("ns/m", ""), Goal("ns/m", None))
RETRIED = [failure for failure in Failure if VERDICTS[failure].again is Again.OTHER]
NOT_RETRIED = [failure for failure in Failure if VERDICTS[failure].again is Again.NOWHERE]


@dataclass
class Script:
    """A router that answers from a list, and remembers what it was asked and told."""

    answers: list[str | RefusalCode]
    asked: list[Request] = field(default_factory=list)
    told: list[tuple[str, Outcome]] = field(default_factory=list)
    first_bytes: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    overdue: set[str] = field(default_factory=set)
    given: list[Pick] = field(default_factory=list)
    unmade: list[str] = field(default_factory=list)
    repeatable: bool = True
    usage: Usage | None = None
    ok: bool | None = None
    waiting: list[Waiting] = field(default_factory=list)
    left: list[Waiting] = field(default_factory=list)
    full: bool = False

    def wait(self, request: Request, now: float, answer: Answer, came_at: float) -> Waiting | Refusal:
        if self.full:
            return Refusal(RefusalCode.SATURATED, "the queue is full", 9)
        self.waiting.append(Waiting(request, LINE, came_at, now + 30, answer, len(self.waiting)))
        return self.waiting[-1]

    def leave(self, waiting: Waiting) -> None:
        self.left.append(waiting)

    def give_up(self, waiting: Waiting, now: float) -> Pick | Refusal:
        self.left.append(waiting)
        return self.acquire(waiting.request, now)

    def acquire(self, request: Request, now: float) -> Pick | Refusal:
        self.times.append(now)
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, RefusalCode):
            return Refusal(answer, "no", 1)
        pick = Pick(f"{answer}-{len(self.asked)}", answer, f"{answer}:80", None, Timeouts(), None)
        self.given.append(pick)
        return pick

    def first_byte(self, attempt_id: str, now: float, *, ok: bool = True) -> None:
        self.times.append(now)
        self.first_bytes.append(attempt_id)
        self.ok = ok

    def is_overdue(self, attempt_id: str, now: float) -> bool:
        self.times.append(now)
        return attempt_id in self.overdue

    def unreached(self, attempt_id: str) -> None:
        self.unmade.append(attempt_id)

    def may_repeat(self, attempt_id: str) -> bool:
        return self.repeatable and any(pick.attempt == attempt_id for pick in self.given)

    def release(self, attempt_id: str, outcome: Outcome, now: float, usage: Usage | None = None) -> bool:
        self.times.append(now)
        self.told.append((attempt_id, outcome))
        self.usage = usage
        return True


def exchange(*answers: str | RefusalCode) -> tuple[Exchange, Script]:
    """Return a started exchange over a script."""
    script = Script(list(answers))
    made = Exchange(script, Request(MODEL, tokens=7))
    made.start(NOW)
    return made, script


def test_what_the_engine_counted_is_passed_on_with_the_end() -> None:
    made, script = exchange("a")
    made.first_byte(NOW, ok=False)
    assert script.ok is False
    made.completed(NOW, Usage(7, 2))
    assert script.usage == Usage(7, 2)


def uid(step: object) -> str:
    assert isinstance(step, Forward), step
    return step.pick.uid


def test_a_request_is_forwarded_where_the_router_says() -> None:
    script = Script(["a"])
    made = Exchange(script, Request(MODEL, tokens=7))
    assert uid(made.start(NOW)) == "a"
    assert script.asked == [Request(MODEL, tokens=7)]
    assert (made.tries, made.began) == (1, False)


def test_a_refusal_is_the_answer_and_nothing_is_released() -> None:
    script = Script([RefusalCode.SATURATED])
    made = Exchange(script, Request(MODEL))
    step = made.start(NOW)
    assert isinstance(step, Refuse)
    assert step.refusal.code is RefusalCode.SATURATED
    made.client_gone(NOW)
    assert (made.tries, script.told) == (0, [])


@pytest.mark.parametrize("failure", list(Failure))
def test_a_connection_that_could_not_be_made_is_noted_and_no_other_failure(failure: Failure) -> None:
    made, script = exchange("a", "b")
    made.failed(failure, NOW)
    assert script.unmade == (["a-1"] if failure is Failure.CONNECT else [])


@pytest.mark.parametrize("leased", [True, False])
def test_connections_that_could_not_be_made_are_counted_in_a_row(leased: bool) -> None:
    of = router(pod("a"))
    assert status(of, "a").unreached == 0
    for _ in range(3):
        attempt = pick(of, NOW).attempt
        of.unreached(attempt)
        of.release(attempt, Outcome.FAILED, NOW)
        of.unreached(attempt)  # late: it is over
    assert status(of, "a").unreached == of.explain(Request(MODEL), NOW).candidates[0].unreached == 3
    attempt = pick(of, NOW, leased=leased).attempt
    if leased:
        of.complete(attempt, Outcome.COMPLETED, NOW)
    else:
        of.first_byte(attempt, NOW)
    assert status(of, "a").unreached == 0


def test_a_relayed_answer_is_completed() -> None:
    made, script = exchange("a")
    made.first_byte(NOW)
    made.completed(NOW)
    assert made.began
    assert script.first_bytes == ["a-1"]
    assert script.told == [("a-1", Outcome.COMPLETED)]


def test_the_router_is_told_when_each_step_was() -> None:
    script = Script(["a", "b"])
    made = Exchange(script, Request(MODEL))
    made.start(1.0)
    made.failed(Failure.CONNECT, 2.0)
    made.first_byte(3.0)
    made.completed(4.0)
    assert script.times == [1.0, 2.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("began", [False, True])
def test_a_client_that_leaves_ends_the_attempt_once(began: bool) -> None:
    made, script = exchange("a")
    if began:
        made.first_byte(NOW)
    made.client_gone(NOW)
    made.client_gone(NOW)
    assert script.told == [("a-1", Outcome.CLIENT_GONE)]


@pytest.mark.parametrize("failure", Failure)
def test_nothing_is_retried_once_a_byte_has_been_sent(failure: Failure) -> None:
    made, script = exchange("a", "b")
    made.first_byte(NOW)
    assert made.failed(failure, NOW) == Fail(VERDICTS[failure], streaming=True)
    assert script.told == [("a-1", Outcome.LOST)]
    assert len(script.asked) == 1


@pytest.mark.parametrize("failure", RETRIED)
def test_other_failures_go_to_another_endpoint(failure: Failure) -> None:
    made, script = exchange("a", "b")
    assert uid(made.failed(failure, NOW)) == "b"
    assert script.told == [("a-1", Outcome.REROUTED)]
    assert set(script.asked[1].avoid) == {"a"}


@pytest.mark.parametrize("failure", NOT_RETRIED)
def test_an_engine_that_has_the_request_is_not_given_up_for_another(failure: Failure) -> None:
    made, script = exchange("a", "b")
    assert made.failed(failure, NOW) == Fail(VERDICTS[failure], streaming=False)
    assert script.told == [("a-1", Outcome.FAILED)]


def test_an_engine_that_is_late_is_among_those() -> None:
    assert Failure.LATE in NOT_RETRIED


def test_attempts_are_limited_and_the_last_failure_is_the_answer() -> None:
    made, script = exchange("a", "b", "c", "d")
    for _ in range(MAX_ATTEMPTS - 1):
        assert isinstance(made.failed(Failure.NO_RESPONSE, NOW), Forward)
    assert made.failed(Failure.NO_RESPONSE, NOW) == Fail(VERDICTS[Failure.NO_RESPONSE], streaming=False)
    assert [outcome for _, outcome in script.told] == [Outcome.REROUTED] * (MAX_ATTEMPTS - 1) + [Outcome.FAILED]
    assert made.tries == MAX_ATTEMPTS
    assert script.asked[-1].avoid == {"a", "b"}


def test_a_stale_connection_is_tried_again_on_the_same_endpoint_once() -> None:
    made, script = exchange("a", "b")
    assert made.failed(Failure.STALE, NOW) == Forward(script.given[0])
    assert script.told == []
    assert uid(made.failed(Failure.STALE, NOW)) == "b"
    assert set(script.asked[1].avoid) == {"a"}
    assert (script.told, made.tries) == ([("a-1", Outcome.REROUTED)], 3)


def test_each_endpoint_may_have_one_stale_connection() -> None:
    made, script = exchange("a", "b", "c")
    made.failed(Failure.STALE, NOW)
    made.failed(Failure.CONNECT, NOW)
    assert made.tries == MAX_ATTEMPTS
    made, script = exchange("a", "b")
    made.failed(Failure.CONNECT, NOW)
    assert made.failed(Failure.STALE, NOW) == Forward(script.given[1])


def test_a_stale_connection_to_an_endpoint_that_gets_no_requests_goes_elsewhere() -> None:
    made, script = exchange("a", "b")
    script.repeatable = False
    assert uid(made.failed(Failure.STALE, NOW)) == "b"
    assert script.told == [("a-1", Outcome.REROUTED)]


def test_what_the_request_itself_avoids_is_avoided_to_the_end() -> None:
    script = Script(["a", "b"])
    made = Exchange(script, Request(MODEL, avoid=frozenset({"x"})))
    made.start(NOW)
    made.failed(Failure.CONNECT, NOW)
    assert [each.avoid for each in script.asked] == [{"x"}, {"x", "a"}]


@pytest.mark.parametrize("code", [code for code in RefusalCode if code is not RefusalCode.SATURATED])
def test_without_another_endpoint_the_failure_is_the_answer(code: RefusalCode) -> None:
    made, script = exchange("a", code)
    assert made.failed(Failure.CONNECT, NOW) == Fail(VERDICTS[Failure.CONNECT], streaming=False)
    assert script.told == [("a-1", Outcome.FAILED)]


def test_when_all_others_are_full_the_client_is_told_to_come_back() -> None:
    made, script = exchange("a", RefusalCode.SATURATED)
    step = made.failed(Failure.CONNECT, NOW)
    assert isinstance(step, Refuse)
    assert script.told == [("a-1", Outcome.FAILED)]
    assert step.refusal.retry_after == 1


def test_a_request_that_an_engine_declines_goes_to_another_one() -> None:
    made, script = exchange("a", "b")
    step = made.declined(NOW)
    assert step is not None
    assert uid(step) == "b"
    assert script.told == [("a-1", Outcome.REROUTED)]
    assert script.asked[1].avoid == {"a"}
    assert (script.first_bytes, script.ok, made.began) == (["a-1"], False, False)


@pytest.mark.parametrize("code", RefusalCode)
def test_where_nobody_else_is_free_what_declines_is_the_answer(code: RefusalCode) -> None:
    made, script = exchange("a", code)
    assert made.declined(NOW) is None
    assert (script.told, script.first_bytes) == ([], [])
    made.first_byte(NOW, ok=False)
    made.completed(NOW)
    assert script.told == [("a-1", Outcome.COMPLETED)]


def test_engines_that_decline_count_as_attempts() -> None:
    made, script = exchange("a", "b", "c", "d")
    assert made.failed(Failure.NO_RESPONSE, NOW) is not None
    assert made.declined(NOW) is not None
    assert made.declined(NOW) is None
    assert len(script.asked) == MAX_ATTEMPTS


def test_an_engine_that_declines_can_be_reached() -> None:
    of, made = real("a", "b")
    first = uid(made.start(NOW))
    other = pick(of, NOW, avoid=frozenset({"a", "b"} - {first}))
    of.unreached(other.attempt)
    of.release(other.attempt, Outcome.FAILED, NOW)
    assert made.declined(NOW) is not None
    assert status(of, first).unreached == 0
    assert counts(of)[first] == 0


def test_at_the_deadline_an_attempt_without_a_byte_is_rerouted_however_often_it_was() -> None:
    made, script = exchange("a", "b", "c", "d", "e")
    for other in "bcde":
        assert uid(made.cut(NOW)) == other
    assert {outcome for _, outcome in script.told} == {Outcome.REROUTED}
    assert script.asked[-1].avoid == set("abcd")


def test_at_the_deadline_a_stream_ends_with_an_error() -> None:
    made, script = exchange("a", "b")
    made.first_byte(NOW)
    step = made.cut(NOW)
    assert isinstance(step, Fail)
    assert (step.streaming, step.verdict.code) == (True, "drain_deadline")
    assert script.told == [("a-1", Outcome.CUT)]


def test_at_the_deadline_without_another_endpoint_the_client_is_told() -> None:
    made, script = exchange("a", RefusalCode.NO_ENDPOINTS)
    step = made.cut(NOW)
    assert isinstance(step, Fail)
    assert (step.streaming, step.verdict.status) == (False, 503)
    assert script.told == [("a-1", Outcome.CUT)]


@pytest.mark.parametrize("began", [False, True])
def test_when_the_router_stops_the_request_ends_and_is_tried_nowhere_else(began: bool) -> None:
    made, script = exchange("a", "b")
    if began:
        made.first_byte(NOW)
    step = made.stopped(NOW + 1)
    assert (step.streaming, step.verdict.status, step.verdict.code) == (began, 503, "shutting_down")
    assert script.told == [("a-1", Outcome.CUT)]
    assert len(script.asked) == 1
    assert script.times[-1] == NOW + 1


def test_what_is_told_after_the_end_is_an_error_of_the_transport() -> None:
    made, script = exchange("a")
    made.completed(NOW)
    for late in (made.completed, made.first_byte, made.cut, made.stopped):
        with pytest.raises(RuntimeError, match="no attempt is under way"):
            late(NOW)
    with pytest.raises(RuntimeError, match="no attempt is under way"):
        made.failed(Failure.CONNECT, NOW)
    assert len(script.told) == 1


# With the real router


def real(*pods: str, capacity: int = 4) -> tuple[Router, Exchange]:
    of = router(*(pod(each, capacity=capacity) for each in pods))
    return of, Exchange(of, Request(MODEL))


def counts(of: Router) -> dict[str, int]:
    return {each.uid: each.in_flight for each in of.status().endpoints}


def test_a_retry_moves_the_count_from_the_first_pod_to_the_second_at_once() -> None:
    of, made = real("a", "b")
    first = uid(made.start(NOW))
    assert counts(of)[first] == 1
    second = uid(made.failed(Failure.CONNECT, NOW))
    assert second != first
    assert counts(of) == {first: 0, second: 1}
    made.completed(NOW)
    assert counts(of) == {first: 0, second: 0}
    assert of.in_flight() == 0


def test_a_stale_connection_is_retried_on_the_same_pod_even_if_another_is_idler() -> None:
    of, made = real("a", "b")
    first = uid(made.start(NOW))
    others = [pick(of, avoid=frozenset({"a", "b"} - {first})) for _ in range(2)]
    assert {each.uid for each in others} == {first}
    assert uid(made.failed(Failure.STALE, NOW)) == first
    assert uid(made.failed(Failure.STALE, NOW)) != first


def test_a_stale_connection_to_a_pod_that_drains_by_now_goes_elsewhere() -> None:
    of, made = real("a", "b")
    first = uid(made.start(NOW))
    see(of, NOW, pod(first, version=2, deleted_at=NOW))
    assert uid(made.failed(Failure.STALE, NOW)) != first


def test_a_failure_of_the_only_pod_is_a_failure_and_not_saturation() -> None:
    of, made = real("a")
    made.start(NOW)
    step = made.failed(Failure.CONNECT, NOW)
    assert isinstance(step, Fail)
    assert step.verdict.status == 502
    assert counts(of) == {"a": 0}


def test_with_all_other_pods_full_a_failed_request_is_told_to_come_back() -> None:
    of, made = real("a", "b", capacity=1)
    first = uid(made.start(NOW))
    pick(of)
    step = made.failed(Failure.CONNECT, NOW)
    assert isinstance(step, Refuse)
    assert step.refusal.code is RefusalCode.SATURATED
    assert counts(of)[first] == 0


def test_a_request_in_flight_may_still_be_retried_while_the_replica_stops() -> None:
    of, made = real("a", "b")
    first = uid(made.start(NOW))
    of.close()
    assert uid(made.failed(Failure.STALE, NOW)) == first
    assert uid(made.failed(Failure.CONNECT, NOW)) != first
    assert isinstance(Exchange(of, Request(MODEL)).start(NOW), Refuse)


def test_at_the_drain_deadline_the_request_moves_to_another_pod() -> None:
    of, made = real("a", "b")
    first = uid(made.start(NOW))
    see(of, NOW, pod(first, version=2, deleted_at=NOW, timeout=5))
    assert len(of.overdue(NOW + 5)) == 1
    second = uid(made.cut(NOW + 5))
    assert status(of, first).in_flight == 0
    assert status(of, second).in_flight == 1
    assert [release.lost for release in of.releasable(NOW + 5)] == [0]


@pytest.mark.parametrize(("after", "code"), [(4.9, "upstream_broken"), (5, "drain_deadline")])
def test_a_stream_that_breaks_once_the_deadline_has_passed_was_cut_by_the_drain(after: float, code: str) -> None:
    of, made = real("a")
    made.start(NOW)
    made.first_byte(NOW)
    see(of, NOW, pod("a", version=2, deleted_at=NOW, timeout=5))
    step = made.failed(Failure.BROKEN, NOW + after)
    assert isinstance(step, Fail)
    assert (step.streaming, step.verdict.code) == (True, code)
    assert counts(of) == {"a": 0}


def test_an_attempt_that_has_ended_is_not_overdue() -> None:
    of, _ = real("a")
    attempt = pick(of).attempt
    see(of, NOW, pod("a", version=2, deleted_at=NOW, timeout=5))
    assert of.is_overdue(attempt, NOW + 5)
    of.release(attempt, Outcome.COMPLETED, NOW + 5)
    assert not of.is_overdue(attempt, NOW + 5)


def test_a_request_that_the_drain_ends_without_another_pod_is_counted_as_lost() -> None:
    of, made = real("a")
    made.start(NOW)
    see(of, NOW, pod("a", version=2, deleted_at=NOW, timeout=5))
    assert isinstance(made.cut(NOW + 5), Fail)
    (release,) = of.releasable(NOW + 5)
    assert (release.in_flight_at_start, release.finished, release.lost) == (1, 0, 1)


def test_a_stale_connection_is_no_new_attempt_and_keeps_its_slot() -> None:
    of, made = real("a", capacity=1)
    first = made.start(NOW)
    assert made.failed(Failure.STALE, NOW) == first
    assert counts(of) == {"a": 1}
    made.completed(NOW)
    assert counts(of) == {"a": 0}


def test_endpoints_that_can_not_be_reached_do_not_hide_one_that_can() -> None:
    dead = [f"dead-{number}" for number in range(MAX_UNREACHABLE)]
    made, script = exchange(*dead[1:], "a", "b")
    for _ in dead[1:]:
        assert isinstance(made.failed(Failure.CONNECT, NOW), Forward)
    assert uid(made.failed(Failure.NO_RESPONSE, NOW)) == "b"
    assert made.failed(Failure.CONNECT, NOW) == Fail(VERDICTS[Failure.CONNECT], streaming=False)
    assert script.told[-1][1] is Outcome.FAILED


# Waiting for a slot


def waits(*answers: str | RefusalCode) -> tuple[Exchange, Script, list[str]]:
    """Return an exchange whose patient request waits, and where the calls of ``on_answer`` are noted."""
    script, calls = Script([RefusalCode.SATURATED, *answers]), list[str]()
    made = Exchange(script, Request(MODEL, patient=True), lambda: calls.append("answered"))
    assert made.start(NOW) == Wait(NOW + 30)
    return made, script, calls


def given_to(script: Script, answer: str) -> Pick:
    script.given.append(Pick(f"{answer}-w", answer, f"{answer}:80", None, Timeouts(), None))
    return script.given[-1]


def test_a_patient_request_waits_and_is_forwarded_when_it_is_its_turn() -> None:
    made, script, calls = waits()
    assert calls == []
    script.waiting[0].answer(given_to(script, "a"))
    assert calls == ["answered"]
    assert uid(made.answered()) == "a"
    assert made.tries == 1
    made.completed(NOW)
    assert script.told == [("a-w", Outcome.COMPLETED)]


def test_a_request_that_is_answered_with_a_refusal_is_refused() -> None:
    made, script, _ = waits()
    script.waiting[0].answer(Refusal(RefusalCode.SHUTTING_DOWN, "no"))
    step = made.answered()
    assert isinstance(step, Refuse)
    assert step.refusal.code is RefusalCode.SHUTTING_DOWN
    made.client_gone(NOW)
    assert script.told == []


def test_a_full_queue_refuses() -> None:
    script = Script([RefusalCode.SATURATED], full=True)
    step = Exchange(script, Request(MODEL, patient=True)).start(NOW)
    assert isinstance(step, Refuse)
    assert step.refusal.retry_after == 9


@pytest.mark.parametrize("code", [code for code in RefusalCode if code is not RefusalCode.SATURATED])
def test_nobody_waits_for_what_does_not_come_with_a_slot(code: RefusalCode) -> None:
    script = Script([code])
    assert isinstance(Exchange(script, Request(MODEL, patient=True)).start(NOW), Refuse)
    assert script.waiting == []


def test_time_up_asks_once_more() -> None:
    made, script, _ = waits("late")
    assert uid(made.waited(NOW + 30)) == "late"
    assert script.left == script.waiting


def test_a_request_that_was_sent_already_waits_no_longer_than_its_whole_time() -> None:
    script = Script(["a", RefusalCode.SATURATED, "never asked"])
    made = Exchange(script, Request(MODEL, patient=True))
    made.start(NOW)
    total = Timeouts().total
    assert made.failed(Failure.NO_RESPONSE, NOW + total - 10) == Wait(NOW + total)
    step = made.waited(NOW + total)
    assert isinstance(step, Fail)
    assert (step.verdict.status, step.streaming) == (504, False)
    assert script.left == script.waiting
    made.client_gone(NOW + total)
    assert script.told == [("a-1", Outcome.REROUTED)]


def test_what_was_not_answered_has_no_answer() -> None:
    made, _, _ = waits()
    with pytest.raises(RuntimeError, match="not answered"):
        made.answered()


def test_an_answer_that_comes_with_the_end_of_the_time_counts() -> None:
    made, script, _ = waits("never asked")
    script.waiting[0].answer(given_to(script, "a"))
    assert uid(made.waited(NOW + 30)) == "a"
    assert script.left == []


def test_a_client_that_leaves_the_queue_is_in_flight_nowhere() -> None:
    made, script, _ = waits()
    made.client_gone(NOW)
    assert script.left == script.waiting
    assert script.told == []


def test_a_client_that_leaves_with_its_turn_frees_the_slot_it_was_given() -> None:
    made, script, _ = waits()
    script.waiting[0].answer(given_to(script, "a"))
    made.client_gone(NOW)
    assert script.told == [("a-w", Outcome.CLIENT_GONE)]


def test_a_request_that_must_go_elsewhere_waits_for_a_slot_there() -> None:
    script = Script(["a", RefusalCode.SATURATED])
    made = Exchange(script, Request(MODEL, patient=True))
    made.start(NOW)
    assert isinstance(made.failed(Failure.NO_RESPONSE, NOW + 5), Wait)
    assert script.told == [("a-1", Outcome.REROUTED)]
    assert script.waiting[0].request.avoid == {"a"}
    assert script.waiting[0].came_at == NOW
    script.waiting[0].answer(given_to(script, "b"))
    assert uid(made.answered()) == "b"
    made.completed(NOW)
    assert script.told[1:] == [("b-w", Outcome.COMPLETED)]


def test_a_request_that_an_engine_declines_waits_for_a_slot_elsewhere() -> None:
    script = Script(["a", RefusalCode.SATURATED])
    made = Exchange(script, Request(MODEL, patient=True))
    made.start(NOW)
    assert isinstance(made.declined(NOW), Wait)
    assert script.told == [("a-1", Outcome.REROUTED)]
    script.waiting[0].answer(given_to(script, "b"))
    assert uid(made.answered()) == "b"
    made.completed(NOW)
    assert script.told[1:] == [("b-w", Outcome.COMPLETED)]
