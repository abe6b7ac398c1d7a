"""One replica put together: what it hears, what its probes say, how it starts, stops and fails."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from tests.app.waiting import eventually
from tests.http.engine import ScriptedEngine, Turn
from tests.http.world import raw_request

from tailrace.app import FINISH_POLL_SECONDS, SAY_SECONDS, Replica, ReplicaFailedError
from tailrace.child import KubernetesChild
from tailrace.core.drain import DrainKind, Mark
from tailrace.core.model import (
    Deletion,
    DrainReason,
    DrainSpec,
    EndpointSeen,
    EndpointSpec,
    ModelSpec,
    Observation,
    Outcome,
    Pick,
    PoolSettings,
    Refusal,
    Request,
    ServerSeen,
    ServerSpec,
    Snapshot,
)
from tailrace.http import serving as doors
from tailrace.http.carry import _Relayed
from tailrace.http.health import Check
from tailrace.link import ChildHealth, Cordon, GateMark, Member, Members, Observed
from tailrace.running import CannotListenError, own_address, running
from tailrace.settings import Settings

SETTINGS = Settings(host="127.0.0.1", proxy_port=0, routing_port=0, admin_port=0, shutdown_seconds=5.0)
SERVER = ServerSpec("shop/llama", "shop", (ModelSpec("m"),))
POD = EndpointSpec("a", SERVER.key, "pod-a", "127.0.0.1:1", capacity=4, ready=True)


def replica(*, in_cluster: bool = False) -> Replica:
    return Replica(SETTINGS, in_cluster=in_cluster)


def uids(one: Replica) -> set[str]:
    return {endpoint.uid for endpoint in one.router.status().endpoints}


def failing(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if not check.ok]


# What it hears


def test_observations_reach_the_core() -> None:
    one = replica()
    one.hear(Observed((ServerSeen(SERVER), EndpointSeen(POD))))
    assert uids(one) == {"a"}


def test_an_observation_that_the_core_chokes_on_is_lost_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = replica()
    apply = one.router.apply

    def choke(observation: Observation, now: float) -> None:
        if observation == Snapshot((), ()):
            raise LookupError("a mistake of the program")
        apply(observation, now)

    monkeypatch.setattr(one.router, "apply", choke)
    one.hear(Observed((ServerSeen(SERVER), Snapshot((), ()), EndpointSeen(POD))))
    assert uids(one) == {"a"}
    assert not one.synced
    assert "could not be taken in: Snapshot" in caplog.text


# Other replicas


def met(one: Replica, *others: Member, answers: int = 9, left: frozenset[str] = frozenset()) -> None:
    one.hear(Members(answers, (one.me, *others), left))


def delete(one: Replica, uid: str = "a") -> None:
    now = one.clock()
    pod = replace(POD, uid=uid, created_at=now, deletion=Deletion(now, now + 60), drain=DrainSpec(settle=0.0))
    one.hear(Observed((ServerSeen(SERVER), EndpointSeen(pod))))


def test_a_drain_waits_for_the_list_of_replicas_and_for_each_of_them() -> None:
    one = replica(in_cluster=True)
    delete(one)
    assert one.router.releasable(one.clock()) == ()
    met(one, Member("r1-b", "127.0.0.1:1"))
    assert one.router.drain_status("a").waiting_for == ("r1-b",)  # type: ignore[union-attr]
    one.router.ack("r1-b", "a", 0, one.clock())
    assert [release.uid for release in one.router.releasable(one.clock())] == ["a"]


def test_without_a_cluster_a_drain_waits_for_no_list() -> None:
    one = replica()
    delete(one)
    assert [release.uid for release in one.router.releasable(one.clock())] == ["a"]


def test_replicas_that_take_requests_share_the_capacity() -> None:
    one = replica(in_cluster=True)
    one.hear(Observed((ServerSeen(SERVER), EndpointSeen(POD))))
    met(one, Member("r1-b", "127.0.0.1:1"))
    assert picks(one) == 2
    met(one, Member("r1-b", "127.0.0.1:1", stopping=True))
    assert picks(one) == 2  # beside the two that are in flight


def picks(one: Replica) -> int:
    """Return how many requests are taken until the replica is full."""
    return next(n for n in range(99) if not isinstance(one.router.acquire(Request("m"), one.clock()), Pick))


def test_marks_of_drains_are_passed_on_to_the_kubernetes_side(monkeypatch: pytest.MonkeyPatch) -> None:
    one, said = replica(in_cluster=True), list[object]()
    monkeypatch.setattr(one.kubernetes, "cordon", said.append)
    monkeypatch.setattr(one.kubernetes, "mark_gate", said.append)
    one._mark("a", Mark(DrainKind.MANUAL, DrainReason.MANUAL, 0.0, generation=7))
    one._mark("a", Mark(DrainKind.PROVISIONAL, DrainReason.GATE, 0.0, incarnation="c1"))
    assert said == [Cordon("a", draining=True, generation=7), GateMark("a", "c1")]


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ({"host": "127.0.0.1"}, "127.0.0.1:9090"),
        ({"host": "::1"}, "[::1]:9090"),
        ({"host": "0.0.0.0", "advertise_address": "10.1.2.3"}, "10.1.2.3:9090"),
        ({"host": "::", "advertise_address": "fd00::7"}, "[fd00::7]:9090"),
    ],
)
def test_it_tells_the_others_an_address_that_reaches_it(told: dict[str, str], address: str) -> None:
    one = Replica(Settings(replica="r0", pod_uid="uid-r0", **told), in_cluster=True)  # type: ignore[arg-type]
    assert (one.me.address, one.me.pod_uid) == (address, "uid-r0")
    assert one.me.id.startswith("r0-")


def test_of_all_addresses_it_tells_one_of_its_own_names_or_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(_: str, __: None, family: int, ___: int) -> list[tuple[object, ...]]:
        if family == socket.AF_INET6:
            raise socket.gaierror
        return [(family, 1, 6, "", ("10.9.9.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert (own_address("0.0.0.0"), own_address("::"), own_address("10.0.0.1")) == ("10.9.9.9", "127.0.0.1", "10.0.0.1")


def test_its_token_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    one = Replica(Settings(peer_token_file=str(file)), in_cluster=True)
    assert one._token() is None
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert one._token() == token
    file.write_text("")
    assert one._token() is None


CHILD = """
import os, sys
from tailrace.core.model import Snapshot
from tailrace.link import Member, Members, Observed, encode
os.write(1, encode(Members(1, (Member({id!r}, ""),), frozenset())))
os.write(1, encode(Observed((Snapshot((), ()),))))
while data := os.read(0, 65536):
    for word in ("Stopping", "Leave"):
        if word.encode() in data:
            open(word, "w").close()
            if word == "Leave":
                sys.exit(0)
"""


def with_child(folder: Path, member: str | None = None) -> Replica:
    """Return a replica whose Kubernetes side is small, and names this member alone; by default the replica itself."""
    one = replica(in_cluster=True)
    assert one.kubernetes is not None
    code = f"import os\nos.chdir({str(folder)!r})\n" + CHILD.format(id=member or one.me.id)
    one.kubernetes._command = [sys.executable, "-c", code]
    return one


async def test_a_stopping_replica_says_so_and_leaves_after_its_last_request(tmp_path: Path) -> None:
    one = with_child(tmp_path)
    task = asyncio.create_task(one.run())
    await eventually(lambda: one.synced)
    one.hear(Observed((ServerSeen(SERVER), EndpointSeen(POD))))
    pick = one.router.acquire(Request("m"), one.clock())
    assert isinstance(pick, Pick)
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually((tmp_path / "Stopping").exists)
    await asyncio.sleep(0.3)
    assert not (tmp_path / "Leave").exists()
    one.router.release(pick.attempt, Outcome.COMPLETED, one.clock())
    await asyncio.wait_for(task, 10)
    assert (tmp_path / "Leave").exists()


async def test_a_replica_whose_name_another_has_taken_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = with_child(tmp_path, member="another")
    with pytest.raises(ReplicaFailedError):
        await asyncio.wait_for(one.run(), 10)
    assert "give each its own" in caplog.text
    assert isinstance(one.router.acquire(Request("m"), one.clock()), Refusal)


# What its probes say


def test_it_is_ready_and_started_from_the_first_whole_list_on() -> None:
    one = replica()
    one.hear(Observed((EndpointSeen(POD),)))
    assert (failing(one.health().ready), failing(one.health().started)) == (["synced"], ["listed"])
    one.hear(Observed((Snapshot((), ()),)))
    assert failing(one.health().ready) == failing(one.health().started) == []


def test_without_the_definition_it_has_started_and_says_why_it_is_not_ready_until_a_list_comes() -> None:
    one = replica(in_cluster=True)
    why = "404 NoCRD: inferenceservers.inference.tailrace.dev is not installed: apply the CRD"
    one.hear(ChildHealth(0.0, 0.0, leader=True, holder="me", api_error=why))
    assert failing(one.health().started) == []
    assert failing(one.health().ready) == ["synced"]
    assert one.health().ready[0].message.endswith(why)
    one.hear(Observed((Snapshot((), ()),)))
    assert failing(one.health().ready) == []


def test_a_stopping_replica_is_unready_yet_alive() -> None:
    one = replica()
    one.apply(Snapshot((), ()))
    one.stopping = True
    assert failing(one.health().ready) == ["serving"]
    assert failing(one.health().live) == []


def test_who_leads_is_said_and_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    one = replica(in_cluster=True)
    monkeypatch.setattr(KubernetesChild, "alive", True)
    one.hear(ChildHealth(1.0, 1.0, leader=False, holder="tailrace-1_ab"))
    assert [check.message for check in one.health().live] == ["", "held by tailrace-1_ab"]
    one.hear(ChildHealth(1.0, 1.0, leader=False, holder="tailrace-1_ab", api_error="403"))
    assert [check.message for check in one.health().live] == ["403", "held by tailrace-1_ab"]


def test_a_kubernetes_side_that_is_away_is_said_and_no_reason_to_restart() -> None:
    one = replica(in_cluster=True)
    one.apply(Snapshot((), ()))
    assert failing(one.health().live) == failing(one.health().ready) == []
    assert "away" in one.health().live[0].message


def test_a_replica_whose_kubernetes_side_is_away_does_not_claim_to_lead() -> None:
    one = replica(in_cluster=True)
    one.hear(ChildHealth(1.0, 1.0, leader=True, holder="me"))
    assert b"tailrace_leader 0.0" in one.metrics.render()


def test_the_age_of_what_is_known_of_the_cluster_is_that_of_the_last_event_or_list() -> None:
    one = replica(in_cluster=True)
    assert one._watch_age() is None
    now = time.monotonic()
    for event, listed in ((now - 7.0, now - 30.0), (now - 30.0, now - 7.0), (now - 7.0, 0.0)):
        one.hear(ChildHealth(event, listed, leader=False, holder=""))
        age = one._watch_age()
        assert age is not None
        assert 7.0 <= age < 27.0


def test_without_a_cluster_nothing_is_said_of_leading() -> None:
    assert b"tailrace_leader" not in replica().metrics.render()


# How it starts, stops and fails


async def test_sigterm_ends_it_and_its_jobs() -> None:
    one, ended = replica(), asyncio.Event()

    async def job() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(one.run(job()))
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 5)
    assert ended.is_set()


async def test_sigterm_while_it_starts_is_not_lost() -> None:
    task = asyncio.create_task(replica().run())
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 5)


async def test_a_job_that_ends_by_a_mistake_stops_the_replica_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def mistaken() -> None:
        await asyncio.sleep(0.05)
        raise LookupError("a mistake of the program")

    with pytest.raises(ReplicaFailedError):
        await asyncio.wait_for(replica().run(mistaken()), 5)
    assert "a mistake of the program" in caplog.text


async def test_a_port_that_is_taken_ends_what_was_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = SETTINGS.model_copy(update={"admin_port": taken.getsockname()[1]})
        with pytest.raises(CannotListenError, match=r"\(admin\): Address already in use"):
            await Replica(settings, in_cluster=False).run()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def serving(one: Replica, caplog: pytest.LogCaptureFixture) -> tuple[asyncio.Task[None], str]:
    """Run a replica; return its task and the address of its proxy."""
    caplog.set_level("INFO")
    task = asyncio.create_task(one.run())
    await eventually(lambda: "serving: OpenAI proxy on " in caplog.text)
    return task, caplog.text.partition("proxy on ")[2].partition(",")[0]


async def dialled(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to ``host:port``."""
    host, port = address.split(":")
    return await asyncio.open_connection(host, int(port))


async def test_new_connections_are_taken_until_the_settle_time_is_over_and_old_ones_are_served_once_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settled, settle = asyncio.Event(), 33.0

    async def sleep(seconds: float) -> None:
        await (settled.wait() if seconds == settle else asyncio.sleep(seconds))

    settings = SETTINGS.model_copy(update={"settle_seconds": settle, "shutdown_seconds": 600.0})
    one = Replica(settings, in_cluster=False, sleep=sleep)
    one.apply(Snapshot((replace(SERVER, pool=PoolSettings(queue_size=0)),), (replace(POD, capacity=1),)))
    task, proxy = await serving(one, caplog)
    held = one.router.acquire(Request("m"), one.clock())
    assert isinstance(held, Pick)
    before, writer = await dialled(proxy)
    assert b"close" not in (await asked(before, writer)).lower()
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: one.stopping)
    late, late_writer = await dialled(proxy)
    assert b"connection: close" in (await asked(late, late_writer)).lower()
    settled.set()
    head = (await asked(before, writer)).lower()
    assert b"connection: close" in head
    assert b"rejected-saturated" in head, "it still decides itself"
    await eventually(lambda: not one._doors[0].sites)
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await dialled(proxy)
    assert not task.done()
    one.router.release(held.attempt, Outcome.COMPLETED, one.clock())
    await asyncio.wait_for(task, 5)
    for each in (writer, late_writer):
        each.close()


async def test_a_stopping_replica_hears_of_the_end_of_what_it_waits_for_and_routes_nothing_new(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Replica(SETTINGS.model_copy(update={"shutdown_seconds": 600.0}), in_cluster=False)
    one.apply(Snapshot((SERVER,), (POD,)))
    task, _ = await serving(one, caplog)
    base = "http://" + caplog.text.partition("/route on ")[2].partition(",")[0]
    async with aiohttp.ClientSession() as session:

        async def post(path: str) -> dict[str, Any]:
            async with session.post(base + path, json={"model": "m"}) as answer:
                found: dict[str, Any] = await answer.json()
                return found

        given = await post("/route")
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: not one._doors[0].sites)
        assert "stopping" in (await post("/route"))["error"]["message"]
        assert not task.done()
        await post(f"/complete/{given['request']}")
    await asyncio.wait_for(task, 5)


async def test_a_stopping_replica_says_again_and_again_what_it_waits_for_and_a_second_signal_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds == SAY_SECONDS:
            await said.wait()
        await asyncio.sleep(min(seconds, FINISH_POLL_SECONDS))

    one = Replica(SETTINGS.model_copy(update={"shutdown_seconds": 600.0}), in_cluster=False, sleep=sleep)
    one.apply(Snapshot((SERVER,), (POD,)))
    task, _ = await serving(one, caplog)
    for leased in (True, True, False):
        one.router.acquire(Request("m", leased=leased), one.clock() - 35.0)
    os.kill(os.getpid(), signal.SIGTERM)
    words = "stopping: waits for 1 request and 2 leases, the oldest 35 s old, 600 s at most; a second signal ends it"
    await eventually(lambda: words in caplog.text)
    assert caplog.text.count("stopping: ") == 1
    said.set()
    await eventually(lambda: caplog.text.count("stopping: ") > 1)
    said.clear()
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(task, 5)
    assert "stopped; not waited for: 1 request and 2 leases" in caplog.text


async def test_a_client_that_keeps_a_connection_is_waited_for_until_it_has_been_idle(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "IDLE_SECONDS", 600.0)
    one = Replica(SETTINGS.model_copy(update={"shutdown_seconds": 600.0}), in_cluster=False)
    one.apply(Snapshot((SERVER,), ()))
    task, proxy = await serving(one, caplog)
    idle, writer = await dialled(proxy)
    await asked(idle, writer)
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: one.stopping)
    await asyncio.sleep(3 * FINISH_POLL_SECONDS)
    assert not task.done()
    monkeypatch.setattr(doors, "IDLE_SECONDS", 0.0)
    assert await asyncio.wait_for(idle.read(), 5) == b""
    await asyncio.wait_for(task, 5)
    writer.close()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a request that nobody can serve now; return the head of the answer."""
    body = b'{"model": "m"}'
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return head


# Slow readers: the engine is done, and the client has yet to read the end of its answer

LARGE = 60_000
"""Bytes that neither make a connection wait nor fit into the window of a client that does not read."""


async def answer_large(turn: Turn) -> None:
    await turn.head(f"Content-Length: {LARGE}", "Content-Type: application/json")
    await turn.send(b"x" * LARGE)


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Yield an engine with large answers."""
    one = ScriptedEngine(answer_large)
    await one.start()
    yield one
    await one.stop()


class Unread(NamedTuple):
    """An answer on a connection with a small window, of which nothing has been read yet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        await self.reader.readuntil(b"\r\n\r\n")
        return await self.reader.readexactly(LARGE)


async def ask(proxy: str) -> Unread:
    host, _, port = proxy.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
    writer.write(raw_request(b'{"model": "m"}'))
    return Unread(reader, writer)


async def past_its_first_polls(one: Replica) -> None:
    """Stop the replica, and return when it would have ended if it did not wait for anything."""
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: one.stopping)
    await asyncio.sleep(5 * FINISH_POLL_SECONDS)


def patient(engine: ScriptedEngine) -> Replica:
    one = Replica(SETTINGS.model_copy(update={"shutdown_seconds": 600.0}), in_cluster=False)
    one.apply(Snapshot((SERVER,), (replace(POD, address=engine.address),)))
    return one


async def test_a_stopping_replica_waits_for_a_client_that_has_yet_to_read_the_end(
    engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    one = patient(engine)
    task, proxy = await serving(one, caplog)
    answer = await ask(proxy)
    await eventually(lambda: engine.received and one.proxy.in_flight() == one.router.in_flight() == 0)
    await past_its_first_polls(one)
    assert not task.done()
    assert await asyncio.wait_for(answer.read(), 5) == b"x" * LARGE
    await asyncio.wait_for(task, 5)
    answer.writer.close()


async def test_a_stopping_replica_waits_for_a_request_whose_attempt_has_ended(
    engine: ScriptedEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, write_eof = asyncio.Event(), _Relayed.write_eof

    async def later(answer: _Relayed, data: bytes = b"") -> None:
        await go_on.wait()
        await write_eof(answer, data)

    monkeypatch.setattr(_Relayed, "write_eof", later)
    one = patient(engine)
    task, proxy = await serving(one, caplog)
    answer = await ask(proxy)
    assert await asyncio.wait_for(answer.read(), 5) == b"x" * LARGE
    await eventually(lambda: one.router.in_flight() == 0)
    await past_its_first_polls(one)
    assert not task.done()
    go_on.set()
    await asyncio.wait_for(task, 5)
    answer.writer.close()


# Jobs


async def test_jobs_are_cancelled_when_the_block_fails() -> None:
    job = asyncio.create_task(asyncio.sleep(60))

    async def wait() -> None:
        await job

    async def block() -> None:
        async with running([wait()], lambda _: None):
            await asyncio.sleep(0)
            raise LookupError

    with pytest.raises(LookupError):
        await block()
    assert job.cancelled()


@pytest.mark.parametrize(("zone", "near"), [("", "here"), ("z2", "there")])
def test_a_replica_is_in_the_zone_that_was_set_or_else_in_that_of_its_node(zone: str, near: str) -> None:
    one = Replica(SETTINGS.model_copy(update={"node": "n1", "zone": zone}), in_cluster=True)
    server = replace(SERVER, pool=PoolSettings("Locality"))
    pods = tuple(replace(POD, uid=uid, zone=at) for uid, at in (("else", "z9"), ("here", "z1"), ("there", "z2")))
    one.hear(Observed((Snapshot((server,), pods),)))
    one.hear(ChildHealth(1.0, 1.0, leader=True, holder="me", zone="z1"))
    found = one.router.acquire(Request("m"), one.clock())
    assert isinstance(found, Pick)
    assert found.uid == near
