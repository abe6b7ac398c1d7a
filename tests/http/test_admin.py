"""The admin door: health, endpoints, drains by people and gates."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from tests.http.world import MODEL, World, endpoint

from tailrace.core.model import Deletion, EndpointGone, EndpointSeen, EndpointSpec, Outcome, Pick, Request
from tailrace.http.admin import AdminDoor
from tailrace.http.auth import CACHE_SECONDS
from tailrace.http.health import Check, Health
from tailrace.link import Reviewed
from tailrace.settings import Settings

GATE, OTHER_GATE, UNBOUND, ADMIN, VIEWER = "gate-0", "gate-1", "unbound", "admin", "viewer"
HOME = "127.0.0.1:8000"
AWAY = "10.0.0.7:8000"


def said(*, user: str = "", pod_uid: str | None = None, allowed: bool = True) -> Reviewed:
    return Reviewed(0, authenticated=True, allowed=allowed, user=user, pod_uid=pod_uid)


NOBODY = Reviewed(0, authenticated=False, allowed=False)


@dataclass
class FakeReviewer:
    """An API server that knows a few tokens, or is away."""

    away: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def review(
        self,
        token: str,
        *,
        audience: str | None = None,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
    ) -> Reviewed:
        self.asked.append(
            {"token": token, "audience": audience, "verb": verb, "resource": resource, "namespace": namespace}
        )
        if self.away:
            return Reviewed(0, authenticated=False, allowed=False, error="connection refused")
        if audience == "tailrace":
            pods = {GATE: "pod-0", OTHER_GATE: "pod-1", UNBOUND: None}
            return said(pod_uid=pods[token]) if token in pods else NOBODY
        if token in (ADMIN, VIEWER):
            return said(user=token, allowed=token == ADMIN or verb == "get")
        return NOBODY


class Caller:
    """Speaks to the admin door of a world."""

    def __init__(self, world: World, door: AdminDoor, port: int) -> None:
        self.door = door
        self._world = world
        self._base = f"http://127.0.0.1:{port}"

    async def text(self, path: str) -> tuple[int, str]:
        async with self._world.session.get(self._base + path) as response:
            return response.status, await response.text()

    async def get(self, path: str, token: str | None = None) -> tuple[int, Any, aiohttp.ClientResponse]:
        return await self._call("GET", path, token, None)

    async def post(
        self, path: str, token: str | None = None, body: object = None
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        return await self._call("POST", path, token, body)

    async def _call(
        self, method: str, path: str, token: str | None, body: object
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body)
        async with self._world.session.request(method, self._base + path, headers=headers, data=data) as response:
            return response.status, json.loads(await response.read()), response


@dataclass
class Cordons:
    made: list[tuple[str, bool, int]] = field(default_factory=list)

    async def __call__(self, uid: str, draining: bool, generation: int) -> None:
        await asyncio.sleep(0)
        self.made.append((uid, draining, generation))


async def caller(
    world: World,
    reviewer: FakeReviewer | None = None,
    *,
    address: str = AWAY,
    cordon: Cordons | None = None,
    health: Health | None = None,
) -> Caller:
    world.serve(endpoint("pod-0", address), endpoint("pod-1", "10.0.0.8:8000"))
    door, port = await world.admin(
        reviewer, cordon=cordon, health=health, render=lambda: b"tailrace_request_total 1.0\n"
    )
    return Caller(world, door, port)


BY_GATE = {"reason": "gate"}
DRAIN, RESUME, HELLO = "/endpoints/pod-0/drain", "/endpoints/pod-0/resume", "/endpoints/pod-0/gate"


# Health and figures


@pytest.mark.parametrize("path", ["livez", "readyz", "startupz"])
async def test_without_checks_all_is_well(path: str) -> None:
    async with World() as world:
        call = await caller(world)
        assert await call.text(f"/{path}") == (200, "ok\n")


async def test_a_check_that_fails_is_named_and_takes_its_endpoint_down_alone() -> None:
    health = Health(
        live=(Check("loop", ok=True),), ready=(Check("a", ok=True), Check("synced", ok=False, message="no"))
    )
    async with World() as world:
        call = await caller(world, health=health)
        assert await call.text("/readyz") == (503, "[-]synced failed: no\nfailed\n")
        assert await call.text("/readyz?verbose") == (503, "[+]a ok\n[-]synced failed: no\nfailed\n")
        assert await call.text("/livez?verbose") == (200, "[+]loop ok\nok\n")
        assert (await call.text("/startupz"))[0] == 200


async def test_metrics_are_text() -> None:
    async with World() as world:
        call = await caller(world)
        assert await call.text("/metrics") == (200, "tailrace_request_total 1.0\n")


async def test_endpoints_show_what_the_core_knows() -> None:
    async with World() as world:
        call = await caller(world)
        pick = world.router.acquire(Request(MODEL), world.clock())
        assert isinstance(pick, Pick)
        _, answer, _ = await call.get("/endpoints")
        assert answer["inFlight"] == 1
        assert {e["uid"]: e["state"] for e in answer["endpoints"]} == {"pod-0": "ready", "pod-1": "ready"}
        assert answer["pools"] == [
            {
                "pool": f"team/{MODEL}",
                "strategy": "WeightedLeastConnections",
                "quality": None,
                "load": None,
                "latency": None,
            }
        ]
        assert answer["endpoints"][0] == {
            "uid": "pod-0",
            "server": "team/srv",
            "name": "pod-0",
            "address": AWAY,
            "node": "",
            "state": "ready",
            "inFlight": 1,
            "unknown": 0,
            "capacity": 8,
            "gpuMemoryGB": None,
            "engineRunning": None,
            "engineWaiting": None,
            "kvUsage": None,
            "connectFailures": 0,
            "reason": "",
        }
        world.router.release(pick.attempt, Outcome.COMPLETED, world.clock())


async def test_other_paths_and_methods_are_refused_in_json() -> None:
    async with World() as world:
        call = await caller(world)
        assert (await call.get("/nothing"))[0] == 404
        assert (await call.post("/endpoints"))[0] == 405
        assert (await call.get(DRAIN))[0] == 405


# Who may


@pytest.mark.parametrize(
    ("path", "token", "body", "status"),
    [
        (DRAIN, GATE, BY_GATE, 200),
        (DRAIN, OTHER_GATE, BY_GATE, 403),
        (DRAIN, UNBOUND, BY_GATE, 403),
        (DRAIN, ADMIN, BY_GATE, 401),
        (DRAIN, "nonsense", BY_GATE, 401),
        (DRAIN, None, BY_GATE, 401),
        (DRAIN, ADMIN, None, 200),
        (DRAIN, VIEWER, None, 403),
        (DRAIN, GATE, None, 401),
        (DRAIN, "nonsense", None, 401),
        (DRAIN, None, None, 401),
        (RESUME, ADMIN, None, 200),
        (RESUME, VIEWER, None, 403),
        (RESUME, GATE, BY_GATE, 401),
        (RESUME, None, None, 401),
        (HELLO, GATE, {"version": 1}, 200),
        (HELLO, OTHER_GATE, {"version": 1}, 403),
        (HELLO, ADMIN, None, 401),
        (HELLO, None, None, 401),
    ],
)
async def test_writes_need_a_token_that_allows_them(path: str, token: str | None, body: object, status: int) -> None:
    async with World() as world:
        call = await caller(world, FakeReviewer(), address=HOME)
        got, answer, response = await call.post(path, token, body)
        assert got == status
        drained = call.door.gates_seen() or world.router.status().drains
        if status == 200:
            assert drained or path == RESUME
        else:
            assert not drained
            assert set(answer["error"]) == {"message", "type", "param", "code"}
        if status == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_one_pods_call_does_not_look_at_every_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        call = await caller(world, FakeReviewer(), address=HOME)
        monkeypatch.setattr(world.router, "status", None)
        calls = [(HELLO, GATE, None), (DRAIN, GATE, BY_GATE), (DRAIN, ADMIN, None), (RESUME, ADMIN, None)]
        assert [(await call.post(*each))[0] for each in calls] == [200] * 4
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("path", "token", "body", "address", "status"),
    [
        (DRAIN, GATE, BY_GATE, AWAY, 503),
        (DRAIN, GATE, BY_GATE, HOME, 200),
        (DRAIN, None, BY_GATE, HOME, 200),
        (DRAIN, None, BY_GATE, AWAY, 401),
        (DRAIN, ADMIN, None, HOME, 503),
        (RESUME, ADMIN, None, HOME, 503),
        (HELLO, GATE, None, HOME, 200),
        (HELLO, GATE, None, AWAY, 503),
    ],
)
async def test_while_the_api_server_is_away_only_a_gate_at_its_own_address_is_believed(
    path: str, token: str | None, body: object, address: str, status: int
) -> None:
    async with World() as world:
        call = await caller(world, FakeReviewer(away=True), address=address)
        got, _, response = await call.post(path, token, body)
        assert got == status
        if status == 503:
            assert "Retry-After" in response.headers


@pytest.mark.parametrize("path", [DRAIN, RESUME, HELLO])
async def test_without_a_cluster_this_machine_may_write(path: str) -> None:
    async with World() as world:
        call = await caller(world)
        assert (await call.post(path))[0] == 200


async def test_without_a_cluster_other_machines_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.web.BaseRequest.remote", "10.1.2.3")
    async with World() as world:
        call = await caller(world)
        for path in (DRAIN, RESUME, HELLO):
            assert (await call.post(path))[0] == 403
        assert (await call.get("/endpoints"))[0] == 200


async def test_a_pods_own_address_is_known_through_an_ipv6_socket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.web.BaseRequest.remote", "::ffff:10.0.0.7")
    async with World() as world:
        call = await caller(world, FakeReviewer(away=True))
        assert (await call.post(DRAIN, GATE, BY_GATE))[0] == 200
        assert (await call.post("/endpoints/pod-1/drain", GATE, BY_GATE))[0] == 503


async def test_who_was_let_through_is_remembered_for_a_minute_and_who_was_not_is_asked_again() -> None:
    reviewer = FakeReviewer()
    async with World() as world:
        ahead, clock = [0.0], world.clock
        world.clock = lambda: clock() + ahead[0]
        call = await caller(world, reviewer)
        for _ in range(3):
            await call.post(DRAIN, GATE, BY_GATE)
        assert len(reviewer.asked) == 1
        await call.post(DRAIN, ADMIN)
        await call.post(RESUME, ADMIN)
        assert len(reviewer.asked) == 2
        ahead[0] = CACHE_SECONDS + 1
        await call.post(DRAIN, GATE, BY_GATE)
        assert len(reviewer.asked) == 3
        for _ in range(2):
            await call.post(DRAIN, VIEWER)
        assert len(reviewer.asked) == 5
    assert reviewer.asked[1] == {
        "token": ADMIN,
        "audience": None,
        "verb": "update",
        "resource": "inferenceservers",
        "namespace": "team",
    }


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/endpoints", None, 401),
        ("/endpoints", GATE, 401),
        ("/endpoints", VIEWER, 200),
        ("/endpoints", ADMIN, 200),
        ("/metrics", None, 401),
        (f"/debug/pick?model={MODEL}", None, 401),
        (f"/debug/pick?model={MODEL}", VIEWER, 200),
        ("/wait-for-drain?pod=pod-0&timeout=0", None, 401),
        ("/wait-for-drain?pod=pod-0&timeout=0", GATE, 200),
        ("/wait-for-drain?pod=pod-0&timeout=0", OTHER_GATE, 401),
        ("/wait-for-drain?pod=pod-0&timeout=0", VIEWER, 200),
    ],
)
async def test_closed_reads_need_a_token(path: str, token: str | None, status: int) -> None:
    async with World(Settings(open_reads=False)) as world:
        call = await caller(world, FakeReviewer())
        assert (await call.get(path, token))[0] == status
        assert (await call.text("/readyz"))[0] == 200


# Drains


async def test_a_drain_by_hand_is_made_durable_and_undone_by_resuming() -> None:
    cordons = Cordons()
    async with World() as world:
        call = await caller(world, FakeReviewer(), cordon=cordons)
        _, answer, _ = await call.post(DRAIN, ADMIN)
        assert (answer["uid"], answer["state"], answer["reason"]) == ("pod-0", "draining", "manual")
        assert set(answer) == {"uid", "state", "inFlight", "safe_to_delete", "deadline", "reason", "waitingFor"}
        _, answer, _ = await call.post(RESUME, ADMIN)
        assert answer["state"] == "ready"
        _, answer, _ = await call.post(DRAIN, ADMIN)
        assert answer["state"] == "draining"
    assert [made[:2] for made in cordons.made] == [("pod-0", True), ("pod-0", False), ("pod-0", True)]
    generations = [made[2] for made in cordons.made]
    assert generations == sorted(set(generations)), "each one counts, within one millisecond too"


async def test_a_gates_drain_is_not_made_durable() -> None:
    cordons = Cordons()
    async with World() as world:
        call = await caller(world, FakeReviewer(), cordon=cordons)
        _, answer, _ = await call.post(DRAIN, GATE, BY_GATE)
        assert (answer["state"], answer["reason"]) == ("draining", "gate")
    assert cordons.made == []


async def test_what_does_not_exist_cannot_be_drained_or_waited_for() -> None:
    async with World() as world:
        call = await caller(world)
        for path in ("/endpoints/none/drain", "/endpoints/none/resume"):
            assert (await call.post(path))[0] == 404
        assert (await call.post("/endpoints/none/drain", None, BY_GATE))[0] == 404
        assert (await call.get("/wait-for-drain?pod=none"))[0] == 404
        assert (await call.get("/wait-for-drain"))[0] == 404


async def test_a_uid_with_slashes_is_reached() -> None:
    async with World() as world:
        call = await caller(world)
        world.serve(endpoint("team/srv/10.0.0.9:80", "10.0.0.9:80"))
        for path in ("/endpoints/team/srv/10.0.0.9:80/drain", "/endpoints/team%2Fsrv%2F10.0.0.9%3A80/drain"):
            assert (await call.post(path))[1]["uid"] == "team/srv/10.0.0.9:80"


def fixed(server: str) -> EndpointSpec:
    """Return an endpoint of a document: its name is its address, its uid has those of its server before it."""
    return replace(endpoint(f"team/{server}/10.0.0.9:80", "10.0.0.9:80"), name="10.0.0.9:80")


@pytest.mark.parametrize("name", ["10.0.0.9:80", "team/10.0.0.9:80", "team%2F10.0.0.9%3A80"])
async def test_an_endpoint_is_drained_and_resumed_by_its_name_too(name: str) -> None:
    async with World() as world:
        call = await caller(world)
        world.serve(fixed("srv"))
        for action, state in (("drain", "draining"), ("resume", "ready")):
            status, answer, _ = await call.post(f"/endpoints/{name}/{action}")
            assert (status, answer["uid"], answer["state"]) == (200, "team/srv/10.0.0.9:80", state)


async def test_a_name_that_two_endpoints_have_drains_neither() -> None:
    async with World() as world:
        call = await caller(world)
        world.serve(fixed("one"), fixed("two"))
        assert (await call.post("/endpoints/10.0.0.9:80/drain"))[0] == 404


async def test_a_gate_calls_its_pod_by_the_uid_alone() -> None:
    async with World() as world:
        call = await caller(world)
        world.serve(fixed("srv"))
        assert (await call.post("/endpoints/10.0.0.9:80/drain", None, BY_GATE))[0] == 404


async def test_a_gates_hello_is_remembered_and_tells_whether_the_pod_is_known() -> None:
    async with World() as world:
        call = await caller(world, FakeReviewer())
        assert call.door.gates_seen() == frozenset()
        assert (await call.post(HELLO, GATE, {"version": 1}))[1] == {"uid": "pod-0", "known": True}
        assert call.door.gates_seen() == {"pod-0"}


async def test_a_gate_that_is_quicker_than_the_watch_is_not_known_yet() -> None:
    async with World() as world:
        call = await caller(world)
        assert (await call.post("/endpoints/new/gate"))[1] == {"uid": "new", "known": False}
        assert call.door.gates_seen() == {"new"}


async def test_the_gates_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.http.admin.MAX_GATES", 3)
    async with World() as world:
        call = await caller(world)
        for name in "abcda":
            await call.post(f"/endpoints/{name}/gate")
        assert call.door.gates_seen() == {"c", "d", "a"}


@pytest.mark.parametrize("body", [b"[]", b"{", b"x" * 20_000])
async def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    async with World() as world:
        call = await caller(world)
        async with world.session.post(call._base + DRAIN, data=body) as response:
            assert response.status in (400, 413)
        assert world.router.status().drains == 0


# Waiting


def deleted(world: World, uid: str = "pod-0", *, seconds: float = 60.0) -> None:
    """Have the pod deleted, with a drain that settles at once."""
    now = world.clock()
    spec = endpoint(uid, AWAY)
    gone = Deletion(started_at=now, deadline=now + seconds)
    drain = replace(spec.drain, settle=0.0)
    world.router.apply(EndpointSeen(replace(spec, server="team/srv", deletion=gone, drain=drain)), now)


async def test_a_wait_ends_as_soon_as_the_last_request_has() -> None:
    async with World() as world:
        call = await caller(world)
        pick = world.router.acquire(Request(MODEL), world.clock())
        assert isinstance(pick, Pick)
        deleted(world)
        world.router.releasable(world.clock())
        _, answer, _ = await call.get("/wait-for-drain?pod=pod-0&timeout=0")
        assert (answer["state"], answer["inFlight"], answer["safe_to_delete"]) == ("draining", 1, False)
        waiting = asyncio.create_task(call.get("/wait-for-drain?pod=pod-0&timeout=20"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        began = time.monotonic()
        world.router.release(pick.attempt, Outcome.COMPLETED, world.clock())
        world.router.releasable(world.clock())
        _, answer, _ = await waiting
        assert answer["safe_to_delete"] is True
        assert time.monotonic() - began < 5


async def test_a_wait_that_times_out_says_where_things_stand() -> None:
    async with World() as world:
        call = await caller(world)
        status, answer, _ = await call.get("/wait-for-drain?pod=pod-0&timeout=1")
        assert (status, answer["state"], answer["safe_to_delete"]) == (200, "ready", False)


async def test_a_wait_is_not_ended_by_changes_elsewhere() -> None:
    async with World() as world:
        call = await caller(world)
        waiting = asyncio.create_task(call.get("/wait-for-drain?pod=pod-0&timeout=1"))
        for _ in range(10):
            await asyncio.sleep(0.02)
            world.changes.notify()
            assert not waiting.done()
        await waiting


@pytest.mark.parametrize("pod", ["pod-0", "team/pod-0", "team%2Fpod-0"])
async def test_a_pod_is_waited_for_by_uid_or_name(pod: str) -> None:
    async with World() as world:
        call = await caller(world)
        world.router.apply(EndpointSeen(replace(endpoint("uid-7", AWAY), name="web", server="team/srv")), world.clock())
        named = pod.replace("pod-0", "web")
        assert (await call.get(f"/wait-for-drain?pod={named}&timeout=0"))[1]["uid"] == "uid-7"
        assert (await call.get(f"/wait-for-drain?pod={pod}&timeout=0"))[1]["uid"] == "pod-0"
        assert (await call.get("/wait-for-drain?pod=other/web&timeout=0"))[0] == 404


@pytest.mark.parametrize("seconds", ["-1", "x", "1e9", ""])
async def test_a_timeout_that_is_none_is_400(seconds: str) -> None:
    async with World() as world:
        call = await caller(world)
        status, answer, _ = await call.get(f"/wait-for-drain?pod=pod-0&timeout={seconds}")
        assert (status, answer["error"]["code"]) == (400, "timeout_invalid")


async def test_a_pod_that_is_gone_may_be_deleted() -> None:
    async with World() as world:
        call = await caller(world)
        deleted(world)
        world.router.apply(EndpointGone("pod-0"), world.clock())
        _, answer, _ = await call.get("/wait-for-drain?pod=pod-0")
        assert (answer["state"], answer["safe_to_delete"]) == ("gone", True)
