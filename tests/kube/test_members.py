"""Records of replicas: who is a member, who has left, and who was told when. The API server is a table in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tailrace.kube import members, objects
from tailrace.kube.client import ApiError, Document, Listing, Resource
from tailrace.kube.members import KEEP_SECONDS, Calling, Roll, SupersededError, record_name
from tailrace.link import Member, Members

A = Member("r0-a", "10.0.0.1:9090", "uid-r0")
B = Member("r1-b", "10.0.0.2:9090", "uid-r1")
BARE = Member("r1-b", "127.0.0.1:9090")


class Cluster:
    """Leases and pods of one namespace, with resourceVersions and guards as the API server keeps them."""

    def __init__(self) -> None:
        self.leases: dict[str, Document] = {}
        self.pods: dict[str, Document] = {}
        self.down = False
        self.calls: list[str] = []
        self.before_list: Callable[[], None] = lambda: None
        self._version = 0

    def run_pod(self, name: str, uid: str, phase: str = "Running") -> None:
        self.pods[name] = {"metadata": {"name": name, "uid": uid}, "status": {"phase": phase}}

    async def get(self, resource: Resource, _: str | None, name: str) -> Document:
        await self._called("get")
        found = (self.leases if resource == objects.LEASES else self.pods).get(name)
        if found is None:
            raise ApiError(404, "NotFound", name)
        return deepcopy(found)

    async def list_all(self, _: Resource, __: str | None = None, *, labels: str = "") -> Listing:
        self.before_list()
        await self._called("list")
        wanted = dict(part.split("=") for part in labels.split(","))
        found = [one for one in self.leases.values() if wanted.items() <= objects.labels(one).items()]
        return Listing(tuple(deepcopy(found)), str(self._version))

    async def create(self, _: Resource, __: str | None, body: Document) -> Document:
        await self._called("create")
        name = objects.name(body)
        if name in self.leases:
            raise ApiError(409, "AlreadyExists", name)
        return self._store(name, body, f"uid-of-{name}")

    async def replace(self, _: Resource, __: str | None, name: str, body: Document) -> Document:
        await self._called("replace")
        held = self.leases[name]["metadata"]
        if body["metadata"].get("resourceVersion") != held["resourceVersion"]:
            raise ApiError(409, "Conflict", name)
        return self._store(name, body, held["uid"])

    async def delete(self, _: Resource, __: str | None, name: str, *, uid: str, version: str = "") -> Document:
        await self._called("delete")
        held = self.leases[name]["metadata"]
        if (uid, version) != (held["uid"], held["resourceVersion"]):
            raise ApiError(409, "Conflict", name)
        return self.leases.pop(name)

    async def _called(self, what: str) -> None:
        self.calls.append(what)
        await asyncio.sleep(0)  # others may come between
        if self.down:
            raise ApiError(0, "ConnectFailed", "")

    def _store(self, name: str, body: Document, uid: str) -> Document:
        self._version += 1
        meta = body["metadata"] | {"uid": uid, "resourceVersion": str(self._version)}
        self.leases[name] = deepcopy(body) | {"metadata": deepcopy(meta)}
        return self.leases[name]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.run_pod("r0", "uid-r0")
    made.run_pod("r1", "uid-r1")
    return made


def roll(cluster: Any, me: Member, clock: Clock | None = None, lease: str = "tailrace") -> Roll:  # noqa: ANN401
    replica = me.id.partition("-")[0]
    return Roll(cluster, me, namespace="home", lease=lease, replica=replica, monotonic=clock or Clock())


async def names(of: Roll) -> tuple[list[str], list[str]]:
    """Return the ids of the members, and of those that have left."""
    live, gone = await of.read()
    return sorted(member.id for member in live), sorted(one.member.id for one in gone)


# Being a member


async def test_each_replica_reads_all_that_registered_with_their_addresses(cluster: Cluster) -> None:
    first, second = roll(cluster, A), roll(cluster, B)
    await first.register()
    await second.register()
    live, gone = await first.read()
    assert {*live} == {A, B}
    assert gone == ()


async def test_records_of_another_installation_and_its_lease_are_not_read(cluster: Cluster) -> None:
    other = roll(cluster, B, lease="staging")
    await other.register()
    cluster.leases["tailrace"] = {"metadata": {"name": "tailrace"}, "spec": {"holderIdentity": "r0_1"}}
    me = roll(cluster, A)
    await me.register()
    assert await names(me) == ([A.id], [])


async def test_registering_again_changes_nothing(cluster: Cluster) -> None:
    me = roll(cluster, A)
    await me.register()
    before = deepcopy(cluster.leases)
    await me.register()
    await roll(cluster, A).register()  # the Kubernetes side of the same life, started anew
    assert cluster.leases == before


async def test_a_new_life_takes_over_the_record_of_its_name_and_the_old_one_notices(cluster: Cluster) -> None:
    old, new = roll(cluster, A), roll(cluster, Member("r0-c", A.address, "uid-r0"))
    await old.register()
    await new.register()
    assert await names(new) == (["r0-c"], [])
    with pytest.raises(SupersededError, match="r0-c"):
        await old.register()
    assert await names(new) == (["r0-c"], [])


async def test_of_two_lives_that_register_at_once_one_is_refused_and_tries_again(cluster: Cluster) -> None:
    one, other = roll(cluster, A), roll(cluster, Member("r0-c", A.address, "uid-r0"))
    refused = [
        error for error in await asyncio.gather(one.register(), other.register(), return_exceptions=True) if error
    ]
    assert len(refused) <= 1
    assert all(isinstance(error, ApiError) for error in refused)
    assert len((await one.read())[0]) == 1


async def test_a_replica_that_is_not_the_pod_it_says_registers_as_none(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.run_pod("r0", "uid-of-another")
    await roll(cluster, A).register()
    other = roll(cluster, B)
    await other.register()
    assert await names(other) == ([A.id, B.id], [])
    assert "no pod home/r0 of the uid uid-r0" in caplog.text


def test_a_records_name_is_fit_for_the_api_server() -> None:
    assert record_name("tailrace", "My_Host.local") == "tailrace-member-my-host.local"
    assert len(record_name("tailrace", "x" * 300)) == 253


# Leaving


@pytest.mark.parametrize(
    ("pod", "left"),
    [
        (("r1", "uid-r1", "Running"), False),
        (("r1", "uid-r1", "Pending"), False),
        (("r1", "uid-r1", "Unknown"), False),
        (("r1", "uid-r1", "Succeeded"), True),
        (("r1", "uid-r1", "Failed"), True),
        (("r1", "uid-of-another", "Running"), True),
        (None, True),
    ],
)
async def test_a_member_has_left_when_its_pod_is_seen_terminal_or_gone(
    cluster: Cluster, pod: tuple[str, str, str] | None, left: bool
) -> None:
    me, other = roll(cluster, A), roll(cluster, B)
    await me.register()
    await other.register()
    del cluster.pods["r1"]
    if pod is not None:
        cluster.run_pod(*pod)
    assert await names(me) == (([A.id], [B.id]) if left else ([A.id, B.id], []))


async def test_a_member_that_is_no_pod_leaves_only_by_saying_so(cluster: Cluster) -> None:
    clock = Clock()
    me, other = roll(cluster, A, clock), roll(cluster, BARE)
    await me.register()
    await other.register()
    clock.now = 1e9
    cluster.pods = {"r0": cluster.pods["r0"]}
    assert await names(me) == ([A.id, BARE.id], [])
    await other.change(members.left)
    assert await names(me) == ([A.id], [BARE.id])


async def test_a_member_that_cannot_be_looked_at_has_not_left(cluster: Cluster) -> None:
    me, other = roll(cluster, A), roll(cluster, B)
    await me.register()
    await other.register()
    cluster.before_list = lambda: setattr(cluster, "down", True)
    with pytest.raises(ApiError):
        await me.read()


async def test_an_old_life_takes_no_leave_for_the_new_one(cluster: Cluster) -> None:
    old, new = roll(cluster, BARE), roll(cluster, Member("r1-c", BARE.address))
    await old.register()
    await new.register()
    await old.change(members.left)
    assert await names(new) == (["r1-c"], [])


async def test_a_member_that_stops_says_so_and_stays(cluster: Cluster) -> None:
    me, other = roll(cluster, A), roll(cluster, B)
    await me.register()
    await other.register()
    await other.change(members.stopping)
    live, gone = await me.read()
    assert {member.id: member.stopping for member in live} == {A.id: False, B.id: True}
    assert gone == ()


async def test_a_replica_that_took_leave_is_a_member_again_in_its_next_life(cluster: Cluster) -> None:
    first = roll(cluster, BARE)
    await first.register()
    await first.change(members.stopping)
    await first.change(members.left)
    second = roll(cluster, Member("r1-c", BARE.address))
    await second.register()
    live, gone = await second.read()
    assert [(member.id, member.stopping) for member in live] == [("r1-c", False)]
    assert gone == ()


async def test_two_words_at_once_are_both_said(cluster: Cluster) -> None:
    call, _ = calling(cluster)
    await call.register()
    await asyncio.gather(call.change(members.stopping), call.change(members.left))
    assert cluster.calls.count("replace") == 2, "neither ran into the other"
    assert await names(roll(cluster, B)) == ([], [A.id])
    assert call.trouble.said == ""


async def test_a_word_that_the_api_server_does_not_take_is_said_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "RETRY_SECONDS", 0.01)
    call, _ = calling(cluster)
    await call.register()
    cluster.down = True
    seen = len(cluster.calls)
    leaving = asyncio.create_task(call.change(members.left))
    await until(lambda: len(cluster.calls) > seen + 2)
    cluster.down = False
    await leaving
    assert await names(roll(cluster, B)) == ([], [A.id])


# Tidying up


async def test_records_of_members_that_left_are_kept_for_a_while_and_then_deleted(cluster: Cluster) -> None:
    clock = Clock()
    me, other = roll(cluster, A, clock), roll(cluster, BARE)
    await me.register()
    await other.register()
    await other.change(members.left)
    for clock.now in (0.0, KEEP_SECONDS - 1):
        await me.sweep((await me.read())[1])
    assert len(cluster.leases) == 2
    clock.now = KEEP_SECONDS
    await me.sweep((await me.read())[1])
    assert await names(me) == ([A.id], [])


async def test_a_record_that_a_new_life_has_taken_over_meanwhile_is_not_deleted(cluster: Cluster) -> None:
    clock = Clock()
    me, other = roll(cluster, A, clock), roll(cluster, BARE)
    await me.register()
    await other.register()
    await other.change(members.left)
    gone = (await me.read())[1]
    await me.sweep(gone)
    await roll(cluster, Member("r1-c", BARE.address)).register()
    clock.now = KEEP_SECONDS
    with pytest.raises(ApiError, match="Conflict"):
        await me.sweep(gone)
    assert await names(me) == ([A.id, "r1-c"], [])


# Calling the roll


class Told:
    """Takes what a calling tells."""

    def __init__(self) -> None:
        self.lists: list[Members] = []

    async def __call__(self, told: Members) -> None:
        self.lists.append(told)


def calling(cluster: Cluster, me: Member = A, *, leading: bool = False) -> tuple[Calling, Told]:
    told = Told()
    return Calling(roll(cluster, me), told, lambda: leading), told


async def test_a_list_answers_what_was_wanted_before_it_was_read_and_not_what_came_meanwhile(cluster: Cluster) -> None:
    call, told = calling(cluster)
    await call.register()
    call.want(3)
    cluster.before_list = lambda: call.want(4)
    await call.once()
    assert told.lists[-1].answers == 3
    await call.once()
    assert told.lists[-1].answers == 4


async def test_a_wanted_list_is_read_at_once_and_an_unwanted_one_now_and_then(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "READ_SECONDS", 60.0)
    call, told = calling(cluster)
    await call.register()
    running = asyncio.create_task(call.run())
    try:
        await until(lambda: len(told.lists) == 1)
        call.want(1)
        await until(lambda: told.lists[-1].answers == 1)
        monkeypatch.setattr(members, "READ_SECONDS", 0.01)
        call.want(2)
        await until(lambda: len(told.lists) >= 5)
    finally:
        running.cancel()


async def test_while_the_api_server_is_away_nothing_is_told_and_afterwards_all_is_answered(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(members, "RETRY_SECONDS", 0.01)
    caplog.set_level("INFO")
    call, told = calling(cluster)
    cluster.down = True
    registering = asyncio.create_task(call.register())
    await until(lambda: len(cluster.calls) > 3)
    cluster.down = False
    await registering
    running = asyncio.create_task(call.run())
    try:
        await until(lambda: told.lists)
        cluster.down = True
        call.want(1)
        seen = len(cluster.calls)
        await until(lambda: len(cluster.calls) > seen + 2)
        assert told.lists[-1].answers == 0
        cluster.down = False
        await until(lambda: told.lists[-1].answers == 1)
    finally:
        running.cancel()
    assert caplog.text.count("drains that need a new list of them wait") == 2
    assert caplog.text.count("members: goes well again") == 2


async def test_a_record_that_was_deleted_is_made_again_before_anybody_is_told(cluster: Cluster) -> None:
    call, told = calling(cluster)
    await call.register()
    cluster.leases.clear()
    await call.once()
    assert [member.id for member in told.lists[-1].live] == [A.id]
    assert len(cluster.leases) == 1


async def test_a_life_whose_name_was_taken_hears_of_it(cluster: Cluster) -> None:
    call, _ = calling(cluster)
    await call.register()
    await roll(cluster, Member("r0-c", A.address, "uid-r0")).register()
    with pytest.raises(SupersededError):
        await call.run()


@pytest.mark.parametrize("leading", [False, True])
async def test_only_the_leader_tidies_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, leading: bool) -> None:
    monkeypatch.setattr(members, "KEEP_SECONDS", 0.0)
    gone = roll(cluster, BARE)
    await gone.register()
    await gone.change(members.left)
    call, told = calling(cluster, leading=leading)
    await call.register()
    await call.once()
    assert told.lists[-1].left == {BARE.id}
    assert len(cluster.leases) == (1 if leading else 2)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.002)
