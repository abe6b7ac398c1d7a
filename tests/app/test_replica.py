"""One replica put together: what it hears, what its probes say, how it starts, stops and fails."""

import asyncio
import os
import signal
import socket

import aiohttp
import pytest
from tests.app.waiting import eventually

from tailrace.app import Replica, ReplicaFailedError
from tailrace.core.model import EndpointSeen, EndpointSpec, ModelSpec, Observation, ServerSeen, ServerSpec, Snapshot
from tailrace.http.health import Check
from tailrace.link import ChildHealth, Observed
from tailrace.running import CannotListenError, running
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


# What its probes say


def test_it_is_ready_and_started_from_the_first_whole_list_on() -> None:
    one = replica()
    one.hear(Observed((EndpointSeen(POD),)))
    assert failing(one.health().ready) == failing(one.health().started) == ["synced"]
    one.hear(Observed((Snapshot((), ()),)))
    assert failing(one.health().ready) == failing(one.health().started) == []


def test_a_stopping_replica_is_unready_yet_alive() -> None:
    one = replica()
    one.apply(Snapshot((), ()))
    one.stopping = True
    assert failing(one.health().ready) == ["serving"]
    assert failing(one.health().live) == []


def test_a_kubernetes_side_that_is_away_is_said_and_no_reason_to_restart() -> None:
    one = replica(in_cluster=True)
    one.apply(Snapshot((), ()))
    assert failing(one.health().live) == failing(one.health().ready) == []
    assert "away" in one.health().live[0].message


def test_a_replica_whose_kubernetes_side_is_away_does_not_claim_to_lead() -> None:
    one = replica(in_cluster=True)
    one.hear(ChildHealth(1.0, 1.0, leader=True, holder="me"))
    assert b"tailrace_leader 0.0" in one.metrics.render()


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


async def test_requests_are_taken_until_the_settle_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    one = Replica(SETTINGS.model_copy(update={"settle_seconds": 0.5}), in_cluster=False)
    one.apply(Snapshot((SERVER,), ()))
    task = asyncio.create_task(one.run())
    await eventually(lambda: "serving: OpenAI proxy on " in caplog.text)
    proxy = caplog.text.partition("proxy on ")[2].partition(",")[0]
    async with aiohttp.ClientSession() as session:

        async def reason() -> str | None:
            async with session.post(f"http://{proxy}/v1/completions", json={"model": "m"}) as answer:
                return answer.headers.get("x-tailrace-dropped-reason")

        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: one.stopping)
        assert await reason() == "rejected-no-endpoints"
    await asyncio.wait_for(task, 5)


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
