"""The replicas that must agree on drains: one Lease object each, made before the first list of pods.

A Lease here is a record and not a lease: it never runs out. A member has left when its record says so (it finished and
took itself off), when a newer life has taken over the record of its name, or when its pod was **seen** terminal or
gone. No timer ends a member. A replica that is no pod leaves in the first two ways only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document
from tailrace.kube.trouble import Trouble
from tailrace.link import Member, Members

log = logging.getLogger(__name__)

READ_SECONDS: Final = 3.0
"""Between two reads that nobody asked for: how late a replica shares capacity with one that joins."""

PAUSE_SECONDS: Final = 0.05
"""Between any two reads: a rollout asks for many."""

RETRY_SECONDS: Final = 0.5

KEEP_SECONDS: Final = 3600.0
"""How long the record of a member that left stays, so that each other member can see that there was one."""

COMPONENT: Final = "member"
_ANNOTATION_MEMBER: Final = f"{names.PREFIX}/member"
_ANNOTATION_ADDRESS: Final = f"{names.PREFIX}/admin-address"
_ANNOTATION_POD: Final = f"{names.PREFIX}/pod"
_ANNOTATION_POD_UID: Final = f"{names.PREFIX}/pod-uid"
_ANNOTATION_STOPPING: Final = f"{names.PREFIX}/stopping"
_LABEL_LEASE: Final = f"{names.PREFIX}/lease"


class SupersededError(Exception):
    """Another life has taken this replica's name; this one is no member any more."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. ``pod`` is the pod's name; ``took_leave``: it says itself that it has left."""

    member: Member
    pod: str
    took_leave: bool
    document: Document


def labels(lease: str) -> dict[str, str]:
    """Return the labels of the records of the installation that writes by this Lease."""
    return {"app.kubernetes.io/component": COMPONENT, _LABEL_LEASE: lease}


def record_name(lease: str, replica: str) -> str:
    """Return the name of a replica's record."""
    return re.sub(r"[^a-z0-9.-]", "-", f"{lease}-member-{replica}".lower())[:253].rstrip("-.")


def record(member: Member, *, lease: str, replica: str) -> Document:
    """Return the record of a replica that begins."""
    annotations = {
        _ANNOTATION_MEMBER: member.id,
        _ANNOTATION_ADDRESS: member.address,
        _ANNOTATION_POD: replica,
        _ANNOTATION_POD_UID: member.pod_uid,
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": record_name(lease, replica), "labels": labels(lease), "annotations": annotations},
        "spec": {"holderIdentity": member.id},
    }


def read_record(document: Document) -> Record:
    """Read a record."""
    said = objects.annotations(document)
    member = Member(
        said.get(_ANNOTATION_MEMBER, objects.name(document)),
        said.get(_ANNOTATION_ADDRESS, ""),
        said.get(_ANNOTATION_POD_UID, ""),
        stopping=_ANNOTATION_STOPPING in said,
    )
    holder = (document.get("spec") or {}).get("holderIdentity")
    return Record(member, said.get(_ANNOTATION_POD, ""), not holder, document)


def stopping(document: Document) -> Document:
    """Return the record of a member that takes no new requests."""
    annotations = objects.annotations(document) | {_ANNOTATION_STOPPING: "true"}
    return document | {"metadata": objects.meta(document) | {"annotations": annotations}}


def left(document: Document) -> Document:
    """Return the record of a member that has ended; it stays for others to see."""
    return document | {"spec": (document.get("spec") or {}) | {"holderIdentity": ""}}


class Roll:
    """Keeps this replica's own record, and reads those of all. Every method may raise ApiError."""

    def __init__(
        self, api: Api, me: Member, *, namespace: str, lease: str, replica: str, monotonic: Callable[[], float]
    ) -> None:
        """Take who we are, where records live, and a clock."""
        self.me = me
        self._api = api
        self._namespace = namespace
        self._lease = lease
        self._replica = replica
        self._monotonic = monotonic
        self._registered = False
        self._changing = asyncio.Lock()
        self._left_since: dict[str, float] = {}

    async def register(self) -> None:
        """Make the record, or take over that of an earlier life.

        A life that was registered before does not take it over from another: SupersededError.
        """
        found = await self._mine()
        if found is None or read_record(found).member.id != self.me.id:
            if self._registered and found is not None:
                raise SupersededError(read_record(found).member.id)
            await self._write(found)
        self._registered = True

    async def _write(self, found: Document | None) -> None:
        mine = record(await self._known_to_the_cluster(), lease=self._lease, replica=self._replica)
        if found is None:
            await self._api.create(objects.LEASES, self._namespace, mine)
        else:
            mine["metadata"]["resourceVersion"] = objects.meta(found)["resourceVersion"]
            await self._api.replace(objects.LEASES, self._namespace, objects.name(mine), mine)

    async def _known_to_the_cluster(self) -> Member:
        """Return who we are; of no pod when there is none of that name and uid: others would take us for gone."""
        if not self.me.pod_uid or (await self._pod(self._replica)).get("uid") == self.me.pod_uid:
            return self.me
        log.warning("there is no pod %s/%s of the uid %s", self._namespace, self._replica, self.me.pod_uid)
        return replace(self.me, pod_uid="")

    async def change(self, how: Callable[[Document], Document]) -> None:
        """Say in the own record how we stand; nothing when it is another life's by now."""
        async with self._changing:  # else of two words at once one would be lost to a conflict
            found = await self._mine()
            if found is not None and read_record(found).member.id == self.me.id:
                await self._api.replace(objects.LEASES, self._namespace, objects.name(found), how(found))

    async def read(self) -> tuple[tuple[Member, ...], tuple[Record, ...]]:
        """Return the members, and the records of those that have left. Read consistently, pods included."""
        selector = ",".join(f"{key}={value}" for key, value in labels(self._lease).items())
        listing = await self._api.list_all(objects.LEASES, self._namespace, labels=selector)
        records = [read_record(document) for document in listing.items]
        gone = [one for one in records if await self._has_left(one)]
        return tuple(one.member for one in records if one not in gone), tuple(gone)

    async def sweep(self, gone: Iterable[Record]) -> None:
        """Delete records of members that left long ago. For the leader."""
        now = self._monotonic()
        records = {one.member.id: one.document for one in gone}
        self._left_since = {each: self._left_since.get(each, now) for each in records}
        for member, since in self._left_since.items():
            if now >= since + KEEP_SECONDS:
                await self._delete(records[member])

    async def _delete(self, document: Document) -> None:
        """Delete the record as it was read: a new life may just take it over."""
        await self._api.delete(
            objects.LEASES,
            self._namespace,
            objects.name(document),
            uid=objects.uid(document),
            version=str(objects.meta(document)["resourceVersion"]),
        )

    async def _has_left(self, one: Record) -> bool:
        if one.took_leave:
            return True
        if not one.member.pod_uid or one.member.id == self.me.id:
            return False
        pod = await self._pod(one.pod)
        return pod.get("uid") != one.member.pod_uid or pod.get("phase") in objects.TERMINAL_PHASES

    async def _pod(self, name: str) -> dict[str, str]:
        """Return uid and phase of a pod, empty when there is none."""
        try:
            pod = await self._api.get(objects.PODS, self._namespace, name)
        except ApiError as error:
            if error.gone:
                return {}
            raise
        return {"uid": objects.uid(pod), "phase": str((pod.get("status") or {}).get("phase") or "")}

    async def _mine(self) -> Document | None:
        try:
            return await self._api.get(objects.LEASES, self._namespace, record_name(self._lease, self._replica))
        except ApiError as error:
            if error.gone:
                return None
            raise


class Calling:
    """Calls the roll: whenever a newer list is wanted, and every few seconds. ``trouble``: what keeps it from that."""

    def __init__(self, roll: Roll, tell: Callable[[Members], Awaitable[None]], leading: Callable[[], bool]) -> None:
        """Take the roll, who is told of each list, and whether this replica may delete old records."""
        self._roll = roll
        self._tell = tell
        self._leading = leading
        self._wanted = 0
        self._news = asyncio.Event()
        self.trouble = Trouble("members", "drains that need a new list of them wait")

    def want(self, number: int) -> None:
        """Ask for a list that is read from now on; it answers every number asked for so far."""
        if number > self._wanted:
            self._wanted = number
            self._news.set()

    async def register(self) -> None:
        """Register, again and again until it is done."""
        while not await self._well(self._roll.register()):  # noqa: ASYNC110 - the API server sends no event
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Read and tell until cancelled. SupersededError when another life has the name."""
        while True:
            self._news.clear()
            if await self._well(self.once()):
                await asyncio.sleep(PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), READ_SECONDS)
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def once(self) -> None:
        """Read and tell; the leader also tidies up."""
        answers = self._wanted
        live, gone = await self._roll.read()
        if self._roll.me.id not in {member.id for member in live}:
            await self._roll.register()  # somebody has deleted the record
            answers = self._wanted
            live, gone = await self._roll.read()
        await self._tell(Members(answers, live, frozenset(one.member.id for one in gone)))
        if self._leading():
            await self._roll.sweep(gone)

    async def change(self, how: Callable[[Document], Document]) -> None:
        """Say in the own record how we stand, again and again until it is said: drains wait for who left unsaid."""
        while not await self._well(self._roll.change(how)):  # noqa: ASYNC110 - the API server sends no event
            await asyncio.sleep(RETRY_SECONDS)

    async def _well(self, work: Awaitable[None]) -> bool:
        try:
            await work
        except ApiError as error:
            self.trouble.met(error)
            return False
        self.trouble.over()
        return True
