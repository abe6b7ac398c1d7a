import json

import pytest

from tailrace.gate.protocol import Answer, Call, Fault, next_call, pause, read_answer, read_hello

UID = "3f1c"
OK = {"uid": UID, "state": "draining", "inFlight": 2, "safe_to_delete": False}
DRAINING = Answer("draining", 2, safe_to_delete=False)
DOWN = Fault("refused")


def answer(status: int = 200, **changes: object) -> Answer | Fault:
    return read_answer(status, json.dumps(OK | changes).encode(), UID)


def test_an_answer_says_where_the_drain_stands() -> None:
    assert answer() == DRAINING
    assert answer(state="drained", inFlight=0, safe_to_delete=True) == Answer("drained", 0, safe_to_delete=True)


@pytest.mark.parametrize("value", ["true", 1, "yes", None, [True], {}])
def test_only_a_literal_true_is_safe(value: object) -> None:
    word = answer(safe_to_delete=value)
    assert isinstance(word, Answer)
    assert word.safe_to_delete is False


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503])
def test_any_other_status_is_a_fault_even_when_the_body_says_safe(status: int) -> None:
    assert isinstance(answer(status, safe_to_delete=True), Fault)


@pytest.mark.parametrize("uid", ["another", None, 3])
def test_an_answer_about_another_pod_is_a_fault(uid: object) -> None:
    assert isinstance(answer(uid=uid, safe_to_delete=True), Fault)


@pytest.mark.parametrize("body", [b"", b"safe", b"[]", b"null", b"\xff", b"[" * 100_000, b'"true"'])
def test_a_body_that_is_no_answer_is_a_fault(body: bytes) -> None:
    assert isinstance(read_answer(200, body, UID), Fault)
    assert isinstance(read_hello(200, body), Fault)


def test_a_count_that_is_no_number_is_left_out() -> None:
    assert answer(inFlight="many") == Answer("draining", None, safe_to_delete=False)


def test_a_hello_says_whether_the_pod_is_known() -> None:
    assert read_hello(200, b'{"known": true}') is True
    assert read_hello(200, b'{"known": false}') is False
    assert read_hello(200, b"{}") is False
    assert isinstance(read_hello(401, b'{"known": true}'), Fault)


def test_the_calls_are_what_the_admin_port_expects() -> None:
    assert (Call.HELLO.method, Call.HELLO.path(UID), Call.HELLO.body) == (
        "POST",
        "/endpoints/3f1c/gate",
        {"version": 1},
    )
    assert (Call.DRAIN.method, Call.DRAIN.path(UID), Call.DRAIN.body) == (
        "POST",
        "/endpoints/3f1c/drain",
        {"reason": "gate"},
    )
    assert (Call.WAIT.method, Call.WAIT.path(UID), Call.WAIT.body) == (
        "GET",
        "/wait-for-drain?pod=3f1c&timeout=20",
        None,
    )


def test_the_gate_is_more_patient_than_the_poll_it_asks_for() -> None:
    assert Call.WAIT.patience > 20


def test_a_uid_cannot_change_the_path() -> None:
    assert Call.DRAIN.path("../x?y") == "/endpoints/..%2Fx%3Fy/drain"


@pytest.mark.parametrize(
    ("last", "word", "expected"),
    [
        (Call.DRAIN, DRAINING, Call.WAIT),
        (Call.DRAIN, Answer("", None, safe_to_delete=False), Call.WAIT),
        (Call.DRAIN, DOWN, Call.DRAIN),
        (Call.WAIT, DRAINING, Call.WAIT),
        (Call.WAIT, Answer("DRAINED", 0, safe_to_delete=False), Call.WAIT),
        (Call.WAIT, DOWN, Call.DRAIN),
        (Call.WAIT, Answer("ready", 2, safe_to_delete=False), Call.DRAIN),
    ],
)
def test_wait_follows_drain_and_drain_follows_a_drain_that_was_lost(
    last: Call, word: Answer | Fault, expected: Call
) -> None:
    assert next_call(last, word) is expected


@pytest.mark.parametrize(
    ("last", "word", "elapsed", "expected"),
    [
        (Call.DRAIN, DRAINING, 0.0, 0.0),
        (Call.DRAIN, DOWN, 5.0, 1.0),
        (Call.WAIT, DRAINING, 0.2, 0.8),
        (Call.WAIT, DRAINING, 20.0, 0.0),
        (Call.WAIT, DOWN, 0.0, 1.0),
    ],
)
def test_a_router_that_answers_at_once_is_not_asked_in_a_busy_loop(
    last: Call, word: Answer | Fault, elapsed: float, expected: float
) -> None:
    assert pause(last, word, elapsed=elapsed, spacing=1.0) == pytest.approx(expected)
