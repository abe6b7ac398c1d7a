"""Replicas talk: drains are agreed over the admin ports, completions find who gave the lease, strangers are refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.http.world import MODEL, Heard, eventually

from tailrace.changes import Changes
from tailrace.core.model import (
    Deletion,
    DrainSpec,
    EndpointSeen,
    EndpointSpec,
    ModelSpec,
    Outcome,
    Pick,
    Request,
    ServerSeen,
    ServerSpec,
)
from tailrace.core.router import Router
from tailrace.http import peers as peers_module
from tailrace.http.admin import AdminDoor
from tailrace.http.auth import Guard
from tailrace.http.errors import DoorError
from tailrace.http.given import Given
from tailrace.http.health import Health
from tailrace.http.peerdoor import PeerDoor
from tailrace.http.peers import Peers
from tailrace.http.routing import RoutingDoor
from tailrace.http.words import read_counts, read_words
from tailrace.link import Member, Reviewed
from tailrace.settings import Settings

OURS, THEIRS = "system:serviceaccount:tailrace-system:tailrace", "system:serviceaccount:shop:default"
SPEC = ServerSpec("team/srv", "team", (ModelSpec(MODEL),))
POD = EndpointSpec("pod-0", SPEC.key, "pod-0", "10.0.0.7:8000", 8, ready=True, drain=DrainSpec(settle=0.0))
SETTINGS = Settings()


class Accounts:
    """An API server that knows whose each token is; ``away``: it cannot be asked."""

    away = False

    async def review(self, token: str, *, audience: str | None = None, **_: object) -> Reviewed:
        if self.away:
            return Reviewed(0, authenticated=False, allowed=False, error="connection refused")
        user = {"ours": OURS, "ours-too": OURS, "theirs": THEIRS}.get(token)
        known = user is not None and audience == "tailrace"
        return Reviewed(0, authenticated=known, allowed=known, user=user or "")


class Side:
    """One replica: a core that others can join, its admin and routing doors, and its talks."""

    def __init__(self, name: str, *, accounts: Accounts | None = None, token: str | None = None) -> None:
        self.name = name
        self.token = token
        self.leads = False
        self.changes = Changes()
        self.router = Router(name, booted_at=time.monotonic(), rng=Random(1), alone=False)
        self.router.on_change = self.changes.notify
        self.peers = Peers(
            self.router, time.monotonic, self.changes, token=lambda: self.token, leading=lambda: self.leads
        )
        self.guard = Guard(accounts, time.monotonic, open_reads=True, own_token=lambda: self.token)
        self.admin = self.routing = ""

    async def open(self, stack: AsyncExitStack, session: aiohttp.ClientSession) -> None:
        peer_door = PeerDoor(self.peers, Given(self.router, time.monotonic), self.guard, SETTINGS)
        admin = AdminDoor(
            self.router,
            time.monotonic,
            SETTINGS,
            guard=self.guard,
            health=Health,
            render_metrics=bytes,
            cordon=None,
            changes=self.changes,
            more=peer_door.routes(),
        )
        routing = RoutingDoor(self.router, time.monotonic, SETTINGS, Heard(), self.peers.forward)
        self.admin, self.routing = [await _listen(stack, door.runner()) for door in (admin, routing)]
        talking = asyncio.create_task(self.peers.run(session))
        stack.push_async_callback(asyncio.wait, [talking])
        stack.callback(talking.cancel)

    def see(self, spec: EndpointSpec = POD) -> None:
        self.router.apply(ServerSeen(SPEC), time.monotonic())
        self.router.apply(EndpointSeen(spec), time.monotonic())

    def delete(self) -> None:
        now = time.monotonic()
        self.router.apply(EndpointSeen(replace(POD, version=2, deletion=Deletion(now, now + 60))), now)

    def meet(self, *members: Member, left: frozenset[str] = frozenset()) -> None:
        ids = frozenset(member.id for member in members)
        self.router.set_members(ids, time.monotonic(), answers=self.router.members_wanted, left=left)
        self.peers.set(members, left)

    @property
    def member(self) -> Member:
        return Member(self.name, self.admin)

    def over(self) -> bool:
        """Whether the drain of the pod is over, with the members listed anew."""
        return bool(self.router.releasable(time.monotonic()))


async def _listen(stack: AsyncExitStack, runner: web.BaseRunner) -> str:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"127.0.0.1:{runner.addresses[0][1]}"


@asynccontextmanager
async def sides(*made: Side) -> AsyncIterator[aiohttp.ClientSession]:
    """Run replicas that know each other and the pod."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for side in made:
            side.see()
            await side.open(stack, session)
        for side in made:
            side.meet(*(each.member for each in made))
        yield session


def request(side: Side, *, leased: bool = False) -> str:
    picked = side.router.acquire(Request(MODEL, leased=leased), time.monotonic())
    assert isinstance(picked, Pick)
    return picked.attempt


async def call(session: aiohttp.ClientSession, url: str, body: object = None, token: str | None = None) -> Any:  # noqa: ANN401
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body)
    async with session.post(f"http://{url}", data=data, headers=headers) as answer:
        return answer.status, await answer.json()


# Drains


async def test_a_drain_waits_for_the_other_replicas_request_and_is_over_soon_after_it() -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second):
        attempt = request(second)
        for side in (first, second):
            side.delete()
            side.meet(first.member, second.member)
        await eventually(lambda: _in_flight(first) == 1, "the other's request is heard of")
        await asyncio.sleep(1.5)
        assert not first.over()
        assert not second.over()
        second.router.release(attempt, Outcome.COMPLETED, time.monotonic())
        await eventually(lambda: first.over() and second.over(), "the drain", seconds=1.0)


def _in_flight(side: Side) -> int:
    told = side.router.drain_status("pod-0")
    return told.in_flight if told else 0


async def test_a_drain_waits_for_a_replica_that_has_not_seen_it() -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second):
        first.delete()
        first.meet(first.member, second.member)
        await asyncio.sleep(0.3)
        assert not first.over()
        second.delete()
        await eventually(first.over, "the drain", seconds=2.0)


async def test_a_gates_call_at_one_replica_drains_the_pod_at_the_other() -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second):
        first.router.gate_calls("pod-0", time.monotonic())
        await eventually(lambda: not isinstance(second.router.acquire(Request(MODEL), time.monotonic()), Pick), "picks")


async def test_a_replica_that_gives_no_answer_is_named_once_and_talked_to_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "REPEAT_SECONDS", 0.05)
    first, second = Side("r0-a"), Side("r1-b")
    nowhere = Member("r1-b", "127.0.0.1:1")
    async with sides(first, second):
        second.delete()
        first.delete()
        first.meet(first.member, nowhere)
        second.meet(Member("r0-a", "127.0.0.1:1"), second.member)
        await eventually(lambda: "r1-b at 127.0.0.1:1, which gives no answer" in caplog.text, "the warning")
        await asyncio.sleep(0.3)
        assert not first.over()
        assert caplog.text.count("drains wait for r1-b") == 1
        first.meet(first.member, second.member)
        await eventually(first.over, "the drain")


async def test_a_mistake_of_the_program_in_a_talk_does_not_end_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "REPEAT_SECONDS", 0.05)
    first, second = Side("r0-a"), Side("r1-b")
    words, failures = first.peers.words, [LookupError("once"), LookupError("twice")]

    def mistaken() -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return words()

    monkeypatch.setattr(first.peers, "words", mistaken)
    async with sides(first, second):
        first.delete()
        second.delete()
        for side in (first, second):
            side.meet(first.member, second.member)
        await eventually(first.over, "the drain")
    assert "trouble in talking to r1-b" in caplog.text


async def test_another_life_that_answers_at_the_address_acknowledges_nothing(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second):
        first.delete()
        second.delete()
        first.meet(first.member, Member("r1-older", second.admin))
        await eventually(lambda: "r1-b answers there" in caplog.text, "the warning")
        assert not first.over()


async def test_while_nothing_drains_nobody_talks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second):
        said: list[object] = []
        monkeypatch.setattr(second.peers, "heard", lambda *words: said.append(words))
        first.changes.notify()
        await asyncio.sleep(1.3)
        assert said == []


async def test_a_thousand_ends_at_once_are_few_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second):
        first.delete()
        second.delete()
        said: list[object] = []
        monkeypatch.setattr(second.peers, "heard", lambda *words: said.append(words))
        await asyncio.sleep(0.2)
        before = len(said)
        for _ in range(1000):
            first.changes.notify()
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert len(said) - before <= 10


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"member": "x"},
        {"member": 3, "drains": {}},
        {"member": "x", "drains": []},
        {"member": "x", "drains": {"u": 3}},
        {"member": "x", "drains": {"u": {"inFlight": -1, "marks": []}}},
        {"member": "x", "drains": {"u": {"inFlight": True, "marks": []}}},
        {"member": "x", "drains": {"u": {"inFlight": 1, "marks": "deletion"}}},
    ],
)
def test_what_are_no_words_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(DoorError) as refused:
        read_words(document)
    assert refused.value.status == 400


# What is in flight


async def test_the_leader_learns_what_the_others_have_in_flight_until_they_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers_module, "COUNT_SECONDS", 0.02)
    first, second = Side("r0-a"), Side("r1-b")
    first.leads = True
    async with sides(first, second):
        attempts = [request(second), request(second, leased=True)]
        await eventually(lambda: first.peers.elsewhere("pod-0") == 2, "counted")
        assert (first.peers.elsewhere("pod-1"), second.peers.elsewhere("pod-0")) == (0, 0)
        second.router.release(attempts[0], Outcome.COMPLETED, time.monotonic())
        await eventually(lambda: first.peers.elsewhere("pod-0") == 1, "counted anew")
        first.meet(first.member, Member("r1-b", "127.0.0.1:1"))
        await asyncio.sleep(0.1)
        assert first.peers.elsewhere("pod-0") == 1  # it gives no answer, and has not left
        first.meet(first.member)
        assert first.peers.elsewhere("pod-0") == 0


@pytest.mark.parametrize("document", [{}, {"inFlight": []}, {"inFlight": {"u": -1}}, {"inFlight": {"u": "1"}}])
def test_what_are_no_counts_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(DoorError):
        read_counts(document)


# Leases


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_a_completion_at_the_wrong_replica_is_passed_on_and_twice_is_no_error(outcome: str) -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second) as session:
        attempt = request(second, leased=True)
        answers = [await call(session, f"{first.routing}/complete/{attempt}", {"outcome": outcome}) for _ in range(2)]
        assert answers == [
            (200, {"request": attempt, "completed": "done"}),
            (200, {"request": attempt, "completed": "already"}),
        ]
        assert second.router.in_flight() == 0
        assert second.router.status().outcomes[outcome] == 1


async def test_a_renewal_at_the_wrong_replica_is_passed_on() -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second) as session:
        attempt = request(second, leased=True)
        status, answer = await call(session, f"{first.routing}/renew/{attempt}")
        assert (status, answer["request"]) == (200, attempt)
        assert 590 < answer["expiresSeconds"] <= 600


@pytest.mark.parametrize("attempt", ["r1-b-99", "r9-z-1", "nonsense"])
async def test_a_lease_that_nobody_gave_is_unknown_everywhere(attempt: str) -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second) as session:
        for path in ("complete", "renew"):
            status, answer = await call(session, f"{first.routing}/{path}/{attempt}")
            assert (status, answer["error"]["code"]) == (404, "request_not_found")


async def test_a_lease_of_a_replica_that_left_is_gone_and_of_one_that_is_away_to_be_asked_again() -> None:
    first, second = Side("r0-a"), Side("r1-b")
    async with sides(first, second) as session:
        first.meet(first.member, Member("r1-b", "127.0.0.1:1"), left=frozenset({"r2-c"}))
        status, answer = await call(session, f"{first.routing}/complete/r2-c-1")
        assert (status, answer["error"]["code"]) == (410, "replica_gone")
        async with session.post(f"http://{first.routing}/complete/r1-b-1") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")


async def test_a_replica_that_runs_no_talks_yet_passes_nothing_on() -> None:
    side = Side("r0-a")
    side.meet(Member("r0-a", ""), Member("r1-b", "127.0.0.1:1"))
    with pytest.raises(DoorError) as refused:
        await side.peers.forward("complete", "r1-b-1", {})
    assert refused.value.status == 503


# Who may


@pytest.mark.parametrize(
    ("token", "status"), [("ours", 200), ("ours-too", 200), ("theirs", 403), ("nobody's", 401), (None, 401)]
)
@pytest.mark.parametrize("path", ["/peer/drains", "/peer/complete/r0-a-1"])
async def test_only_replicas_of_the_same_account_may_talk(path: str, token: str | None, status: int) -> None:
    side = Side("r0-a", accounts=Accounts(), token="ours")
    async with sides(side) as session:
        request(side, leased=True)
        words = {"member": "r1-b", "drains": {}}
        body = words if path == "/peer/drains" else None
        assert (await call(session, side.admin + path, body, token))[0] == status
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with session.get(f"http://{side.admin}/peer/counts", headers=headers) as answer:
            assert answer.status == status


async def test_a_replica_shows_its_token_and_is_believed() -> None:
    accounts = Accounts()
    first, second = Side("r0-a", accounts=accounts, token="ours"), Side("r1-b", accounts=accounts, token="ours-too")
    async with sides(first, second):
        for side in (first, second):
            side.delete()
            side.meet(first.member, second.member)
        await eventually(lambda: first.over() and second.over(), "the drain")


async def test_while_the_api_server_cannot_be_asked_a_stranger_is_not_let_through() -> None:
    accounts = Accounts()
    accounts.away = True
    side = Side("r0-a", accounts=accounts, token="ours")
    async with sides(side) as session:
        status, answer = await call(session, f"{side.admin}/peer/drains", {"member": "x", "drains": {}}, "ours")
        assert (status, answer["error"]["code"]) == (503, "api_server_unreachable")


async def test_without_a_token_of_its_own_a_replica_listens_to_its_own_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side = Side("r0-a", accounts=Accounts())
    async with sides(side) as session:
        words = {"member": "x", "drains": {}}
        assert (await call(session, f"{side.admin}/peer/drains", words))[0] == 200
        monkeypatch.setattr(web.BaseRequest, "remote", "10.0.0.9")
        assert (await call(session, f"{side.admin}/peer/drains", words, "ours"))[0] == 403
