"""The parent of the Kubernetes side, with small scripted children. Every test runs on both event loops."""

import asyncio
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.app.children import PRELUDE, QUICK, Family, exists
from tests.app.waiting import eventually

from tailrace.child import KubernetesChild, Patience, agent_command
from tailrace.core.model import DrainOutcome, DrainReason, EndpointGone, EndpointState, Release
from tailrace.link import (
    ChildHealth,
    Cordon,
    Desired,
    EndpointReport,
    GateMark,
    Member,
    Message,
    Observed,
    Review,
    Reviewed,
)

RELEASE = Release("uid-1", DrainReason.DELETE, DrainOutcome.DRAINED, 1.0, 2.0, 0, 0, 0)
FIRST, SECOND = Desired((), ()), Desired((RELEASE,), ())

TELL_PID = "say(str(os.getpid()))\n"
REPORT_DESIRED = "while True: say(f'{len(hear().releases)} releases')"


async def test_messages_are_delivered_in_order(tmp_path: Path) -> None:
    async with Family("for n in range(500): say(str(n))\nstay()", tmp_path) as family:
        await family.said(*map(str, range(500)))


async def test_a_large_message_is_delivered(tmp_path: Path) -> None:
    script = "os.set_blocking(1, True)\nwith open(1, 'wb', closefd=False) as f:"
    script += "\n    f.write(encode(Observed(tuple(EndpointGone(str(n)) for n in range(100_000)))))\nstay()"
    async with Family(script, tmp_path) as family:
        await eventually(lambda: family.heard)
        assert family.heard == [Observed(tuple(EndpointGone(str(n)) for n in range(100_000)))]


async def test_what_is_desired_reaches_the_child(tmp_path: Path) -> None:
    async with Family("say('here')\n" + REPORT_DESIRED, tmp_path) as family:
        await family.said("here")
        family.parent.desire(FIRST)
        family.parent.desire(SECOND)
        await family.said("here", "0 releases", "1 releases")


async def test_endpoints_are_said_again_only_when_they_stand_otherwise_or_to_a_new_child(tmp_path: Path) -> None:
    script = "say('here')\nfor _ in range(3): told = hear().endpoints; say(f'{told and len(told)}')"
    one = EndpointReport("uid-1", "shop/llama", EndpointState.READY, 0, gate_seen=True)
    async with Family(script, tmp_path) as family:
        await family.said("here")
        family.parent.desire(Desired((), (one,)))
        family.parent.desire(Desired((RELEASE,), (one,)))
        family.parent.desire(Desired((RELEASE,), (replace(one, in_flight=1), one)))
        await family.said("here", "1", "None", "2", "here", "2")


async def test_what_was_desired_before_the_first_child_is_said_to_it(tmp_path: Path) -> None:
    family = Family(REPORT_DESIRED, tmp_path)
    family.parent.desire(FIRST)
    family.parent.desire(SECOND)
    async with family:
        await family.said("1 releases")


async def test_each_new_child_is_told_the_last_desire_again_and_only_that(tmp_path: Path) -> None:
    script = "say(f'{len(hear().releases)} releases')\nhear()\nsys.exit(0)"
    async with Family(script, tmp_path) as family:
        family.parent.desire(FIRST)
        await family.said("0 releases")
        family.parent.desire(SECOND)
        await family.said("0 releases", "1 releases")
        assert family.parent.restarts == 1


@pytest.mark.parametrize("ending", ["sys.exit(0)", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_a_child_that_ends_in_any_way_is_started_again(tmp_path: Path, ending: str) -> None:
    async with Family(f"say('lived')\n{ending}", tmp_path) as family:
        await eventually(lambda: family.texts[:3] == ["lived"] * 3)
        assert family.parent.restarts >= 2


async def test_restarts_in_a_row_pause_longer_each_time_up_to_the_last_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[float] = []
    family = Family("say('lived')", tmp_path, replace(QUICK, backoff=(0.0, 0.3)))
    family.parent._on_message = lambda _: starts.append(time.monotonic())
    async with family:
        await eventually(lambda: len(starts) == 4)
    _, *later = (after - before for before, after in pairwise(starts))
    assert min(later) >= 0.3
    told = [message.rpartition("next start in ")[2] for message in caplog.messages if "next start in" in message]
    assert told[:3] == ["0.0 s", "0.3 s", "0.3 s"]


async def test_a_child_that_lived_long_enough_starts_the_row_anew(tmp_path: Path) -> None:
    async with Family("say('lived')", tmp_path, replace(QUICK, backoff=(0.0, 600.0), stable=0.0)) as family:
        await eventually(lambda: family.texts[:3] == ["lived"] * 3)


async def test_a_command_that_cannot_be_started_is_tried_again() -> None:
    parent = KubernetesChild(["/no/such/program"], lambda _: None, time.monotonic, QUICK)
    task = asyncio.create_task(parent.run())
    await eventually(lambda: parent.restarts >= 3)
    assert not parent.alive
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize(
    "garbage",
    [
        "os.write(1, b'Traceback (most recent call last):')",
        "os.write(1, struct.pack('>I', 3) + b'abc')",
        "os.write(1, struct.pack('>I', 2**32 - 1))",
        "import pickle; body = pickle.dumps({}); os.write(1, struct.pack('>I', len(body)) + body)",
        "while True: os.write(1, b'y' * 65536)",
    ],
)
async def test_garbage_on_the_pipe_ends_that_child_and_not_the_parent(tmp_path: Path, garbage: str) -> None:
    once = "if not os.path.exists('second'):\n    open('second', 'w').close()\n    "
    async with Family(f"{once}{garbage}\n    time.sleep(60)\nsay('whole again')\nstay()", tmp_path) as family:
        await family.said("whole again")
        assert family.parent.restarts == 1
        assert family.parent.alive


async def test_a_message_that_the_parent_chokes_on_is_lost_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    family = Family("say('good')\nsay('bad')\nsay('good again')\nstay()", tmp_path)

    def choke(message: Message) -> None:
        if isinstance(message, ChildHealth) and message.holder == "bad":
            raise LookupError("a mistake of the program")
        family.hear(message)

    family.parent._on_message = choke
    async with family:
        await family.said("good", "good again")
        assert family.parent.restarts == 0
    assert "could not be taken in: ChildHealth" in caplog.text


# Reviews


ANSWER = """
while True:
    asked = hear()
    if isinstance(asked, Review):
        send(Reviewed(asked.ticket, asked.token == 'good', asked.verb == 'update', user=repr(asked)))
"""


async def test_a_review_is_answered(tmp_path: Path) -> None:
    async with Family("say('here')\n" + ANSWER, tmp_path) as family:
        await family.said("here")
        asked = {"audience": "tailrace", "verb": "update", "resource": "inferenceservers", "namespace": "shop"}
        answer = await family.parent.review("good", **asked)
        assert (answer.authenticated, answer.allowed, answer.error) == (True, True, "")
        assert answer.user == repr(Review(1, "good", **asked))


async def test_answers_find_their_reviews_in_any_order(tmp_path: Path) -> None:
    script = "say('here')\nasked = [hear() for _ in range(20)]\nfor one in reversed(asked):"
    script += "\n    send(Reviewed(one.ticket, True, True, user=one.token))\nstay()"
    async with Family(script, tmp_path) as family:
        await family.said("here")
        answers = await asyncio.gather(*(family.parent.review(f"token {n}") for n in range(20)))
        assert [answer.user for answer in answers] == [f"token {n}" for n in range(20)]


async def test_an_answer_nobody_waits_for_is_no_error(tmp_path: Path) -> None:
    async with Family("send(Reviewed(99, True, True))\nsay('still here')\nstay()", tmp_path) as family:
        await family.said("still here")


async def test_a_review_that_is_not_answered_ends_at_its_time_and_knows_nothing(tmp_path: Path) -> None:
    async with Family("say('here')\nstay()", tmp_path, replace(QUICK, review=0.05)) as family:
        await family.said("here")
        answer = await family.parent.review("token")
        assert not answer.authenticated
        assert "no answer" in answer.error
        assert family.parent._reviews == {}


async def test_reviews_in_flight_fail_when_the_child_dies(tmp_path: Path) -> None:
    script = "say('here')\nhear()\nhear()\nos.kill(os.getpid(), signal.SIGKILL)"
    async with Family(script, tmp_path, replace(QUICK, review=60.0)) as family:
        await family.said("here")
        answers = await asyncio.wait_for(asyncio.gather(*(family.parent.review("t") for _ in range(2))), 5)
        assert [answer.error for answer in answers] == ["the Kubernetes side went away"] * 2


async def test_a_review_while_no_child_runs_fails_at_once() -> None:
    parent = KubernetesChild(["/no/such/program"], lambda _: None, time.monotonic, QUICK)
    answer = await asyncio.wait_for(parent.review("token"), 1)
    assert answer == Reviewed(1, authenticated=False, allowed=False, error="the Kubernetes side is restarting")


# Cordons


REPORT_CORDONS = """
while True:
    heard = hear()
    if isinstance(heard, Cordon):
        say(f'{heard.uid} {heard.draining} {heard.generation}')
"""


async def test_a_cordon_reaches_a_child_that_runs_at_once(tmp_path: Path) -> None:
    async with Family("say('here')\n" + REPORT_CORDONS, tmp_path) as family:
        await family.said("here")
        family.parent.cordon(Cordon("uid-1", draining=True, generation=1))
        await family.said("here", "uid-1 True 1")


async def test_the_last_word_on_each_pod_waits_for_the_first_child(tmp_path: Path) -> None:
    family = Family(REPORT_CORDONS, tmp_path)
    family.parent.cordon(Cordon("a", draining=True, generation=1))
    family.parent.cordon(Cordon("b", draining=True, generation=2))
    family.parent.cordon(Cordon("a", draining=False, generation=3))
    family.parent.cordon(Cordon("a", draining=True, generation=1))
    async with family:
        await family.said("a False 3", "b True 2")


async def test_a_cordon_that_died_with_its_child_is_said_to_the_next_one(tmp_path: Path) -> None:
    async with Family("say('here')\nheard = hear()\nsay(heard.uid)", tmp_path) as family:
        await family.said("here")
        family.parent.cordon(Cordon("a", draining=True, generation=1))
        await family.said("here", "a", "here", "a")


async def test_a_cordon_that_is_written_is_not_said_to_the_next_child(tmp_path: Path) -> None:
    script = "say('here')\nheard = hear()\nsend(Cordoned(heard))\nsay(heard.uid)"
    async with Family(script, tmp_path) as family:
        await family.said("here")
        family.parent.cordon(Cordon("a", draining=True, generation=1))
        await family.said("here", "a", "here")
        await asyncio.sleep(0.1)
        assert family.texts == ["here", "a", "here"]


# Marks, stopping and leaving


async def test_a_gate_mark_and_that_it_stops_reach_the_child(tmp_path: Path) -> None:
    async with Family("say('here')\nwhile True: say(type(hear()).__name__)", tmp_path) as family:
        await family.said("here")
        family.parent.mark_gate(GateMark("uid-1", "c1"))
        family.parent.stopping()
        await family.said("here", "GateMark", "Stopping")


async def test_a_child_that_takes_leave_is_waited_for_and_not_started_again(tmp_path: Path) -> None:
    script = "say('here')\nsay(type(hear()).__name__)\ntime.sleep(0.2)\nopen('left', 'w').close()\nsys.exit(0)"
    async with Family(script, tmp_path) as family:
        await family.said("here")
        await asyncio.wait_for(family.parent.leave(), 5)
        assert (tmp_path / "left").exists()
        await eventually(lambda: family.task is not None and family.task.done())
        assert family.texts == ["here", "Leave"]


async def test_a_child_that_does_not_leave_is_waited_for_no_longer_than_it_takes_to_stop_one(tmp_path: Path) -> None:
    async with Family("say('here')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nstay()", tmp_path) as family:
        await family.said("here")
        began = time.monotonic()
        await family.parent.leave()
        assert time.monotonic() - began < 3 * QUICK.stop


async def test_leaving_while_no_child_runs_is_no_error() -> None:
    parent = KubernetesChild(["/no/such/program"], lambda _: None, time.monotonic, QUICK)
    await asyncio.wait_for(parent.leave(), 1)


def test_the_child_is_told_whose_it_is() -> None:
    command = agent_command(Member("r0-a", "10.0.0.1:9090", "uid-r0"))
    assert command[-3:] == ["r0-a", "10.0.0.1:9090", "uid-r0"]


# A child that does not read


async def test_a_child_that_does_not_read_neither_blocks_the_parent_nor_fills_its_memory(tmp_path: Path) -> None:
    limit = 1_000_000
    family = Family(TELL_PID + "time.sleep(60)", tmp_path, replace(QUICK, unsent_bytes=limit))
    long = Desired((replace(RELEASE, uid="x" * 100_000),), ())
    async with family:
        await eventually(lambda: family.texts)
        most = await flood(family, long)
        assert limit < most < limit + 200_000
        await eventually(lambda: not exists(int(family.texts[0])))
        await eventually(lambda: len(family.texts) == 2)


async def flood(family: Family, desired: Desired) -> int:
    """Say the same until the child has had enough; return the most bytes that waited for it."""
    most = 0
    async with asyncio.timeout(10):
        while not most or (family.parent.alive and unsent(family.parent)):
            began = time.monotonic()
            family.parent.desire(desired)
            assert time.monotonic() - began < 1
            most = max(most, unsent(family.parent))
            await asyncio.sleep(0)
    return most


def unsent(parent: KubernetesChild) -> int:
    process = parent._process
    assert process is not None
    assert process.stdin is not None
    return process.stdin.transport.get_write_buffer_size()


# The end


async def family_of_one(script: str, folder: Path, patience: Patience = QUICK) -> tuple[Family, int]:
    """Return a running family and the pid of its child."""
    family = await Family(script, folder, patience).__aenter__()
    await eventually(lambda: family.texts)
    return family, int(family.texts[0])


@pytest.mark.parametrize(
    "life",
    [
        "stay()",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('deaf')\ntime.sleep(60)",
        "while True: say('x' * 60000)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: say('x' * 60000)",
    ],
    ids=["polite", "deaf", "talkative", "deaf and talkative"],
)
async def test_a_cancelled_parent_leaves_no_child_and_no_zombie(tmp_path: Path, life: str) -> None:
    family, pid = await family_of_one(TELL_PID + life, tmp_path)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(family.end(), 5)
    assert not exists(pid)
    assert not family.parent.alive


async def test_a_parent_cancelled_while_it_stops_a_child_still_stops_it(tmp_path: Path) -> None:
    broken = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TELL_PID + "os.write(1, b'y' * 99)\ntime.sleep(60)"
    family, pid = await family_of_one(broken, tmp_path)
    process = family.parent._process
    assert process is not None
    assert process.stdin is not None
    await eventually(process.stdin.is_closing)
    await asyncio.wait_for(family.end(), 5)
    assert not exists(pid)
    assert not family.parent.alive


async def test_a_polite_child_may_finish_its_work_when_it_is_told_to_end(tmp_path: Path) -> None:
    goodbye = "def bye(*_):\n    open('done', 'w').close()\n    os._exit(0)\nsignal.signal(signal.SIGTERM, bye)\n"
    family, _ = await family_of_one(goodbye + TELL_PID + "time.sleep(60)", tmp_path, replace(QUICK, stop=30.0))
    await asyncio.wait_for(family.end(), 5)
    assert (tmp_path / "done").exists()


async def test_a_parent_cancelled_while_no_child_runs_ends_at_once(tmp_path: Path) -> None:
    family = Family("sys.exit(0)", tmp_path, replace(QUICK, backoff=(600.0,)))
    async with family:
        await eventually(lambda: family.parent.restarts == 1)
        await asyncio.wait_for(family.end(), 1)


async def test_desires_and_cordons_after_the_end_are_no_error(tmp_path: Path) -> None:
    family, _ = await family_of_one(TELL_PID + "stay()", tmp_path)
    await family.end()
    family.parent.desire(FIRST)
    family.parent.cordon(Cordon("a", draining=True, generation=1))
    assert (await family.parent.review("token")).error


def test_the_child_ends_when_its_parent_is_killed() -> None:
    grandchild = f"{PRELUDE}\n{TELL_PID}stay()"
    parent = (
        "import asyncio, sys, time; from tailrace.child import KubernetesChild\n"
        "say = lambda message: print(message.holder, flush=True)\n"
        f"child = KubernetesChild([sys.executable, '-c', {grandchild!r}], say, time.time)\n"
        "asyncio.run(child.run())"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 5
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(pid)


def running(pid: int) -> bool:
    """Tell whether the process runs; an orphan may stay a zombie where nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_no_descriptors_are_left_open_by_restarts(tmp_path: Path) -> None:
    async with Family("say('lived')", tmp_path) as family:
        await eventually(lambda: family.parent.restarts >= 1)
        before = open_descriptors()
        await eventually(lambda: family.parent.restarts >= 9)
        assert open_descriptors() <= before + 4


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
