"""Who may write: the holder of one Lease. The decision is pure; the rest is a loop around it.

Rules: a foreign Lease has run out when its record did not change for its whole duration on **our** clock (clocks of
machines differ); a leader that could not renew for the duration is no leader, whatever else it does not know; a
leader that leaves gives the Lease back. A Lease is no fence, so every write is guarded by uid and resourceVersion.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document
from tailrace.kube.trouble import Trouble

log = logging.getLogger(__name__)


class Move(Enum):
    """What to do with the Lease as it was read."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Sight:
    """A record and the moment (monotonic) at which it was first seen so."""

    record: tuple[object, ...] | None
    since: float


def look(lease: Document | None, before: Sight, now: float) -> Sight:
    """Return the sight of the Lease; only a changed record moves the moment."""
    spec = (lease or {}).get("spec") or {}
    record = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("acquireTime")) if lease else None
    return before if record == before.record else Sight(record, now)


def decide(lease: Document | None, sight: Sight, *, identity: str, now: float) -> Move:
    """Return what to do with the Lease."""
    if lease is None:
        return Move.CREATE
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity")
    if holder == identity:
        return Move.RENEW
    ran_out = now - sight.since >= float(spec.get("leaseDurationSeconds") or 0)
    return Move.TAKE if not holder or ran_out else Move.WAIT


def record(lease: Document | None, *, identity: str, seconds: float, moment: float) -> Document:
    """Return the Lease's new ``spec``: held by ``identity``, by nobody when that is empty. ``moment`` is wall time."""
    spec = (lease or {}).get("spec") or {}
    stamp = objects.micro_timestamp(moment)
    same = spec.get("holderIdentity") == identity
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(seconds)) if identity else 1,
        "acquireTime": spec.get("acquireTime", stamp) if same else stamp,
        "renewTime": stamp,
        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not same and bool(identity)),
    }


class Election:
    """Campaigns for a Lease as long as ``run`` runs. ``leading`` may be asked at any time and is never stale."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        renew_seconds: float,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        changed: Callable[[bool], None],
    ) -> None:
        """Take where the Lease is, who we are, the two clocks, and whom to tell when we begin or cease to lead."""
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._renew_seconds = renew_seconds
        self._monotonic = monotonic
        self._wall = wall
        self._changed = changed
        self._sight = Sight(None, monotonic())
        self._until = float("-inf")
        self._told = False
        self._trouble = Trouble(f"lease {namespace}/{name}", "this replica writes only while it holds it")
        self.holder = ""

    @property
    def leading(self) -> bool:
        """Whether we hold the Lease now."""
        return self._monotonic() < self._until

    async def run(self) -> None:
        """Campaign and renew until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._renew_seconds if self.leading else min(1.0, self._renew_seconds))

    async def step(self) -> None:
        """Look at the Lease once and do what is to be done."""
        try:
            await asyncio.wait_for(self._step(), self._renew_seconds)
        except (ApiError, TimeoutError) as error:
            self._trouble.met(str(error) or "no answer in time")
        else:
            self._trouble.over()
        self._tell()

    async def release(self) -> None:
        """Give the Lease back, so that the next leader needs not wait; best effort."""
        was_leading, self._until = self.leading, float("-inf")
        self._tell()
        if was_leading:
            with contextlib.suppress(ApiError):
                lease = await self._read()
                if lease and lease.get("spec", {}).get("holderIdentity") == self._identity:
                    await self._write(lease, "")

    async def _step(self) -> None:
        asked_at = self._monotonic()
        lease = await self._read()
        self._sight = look(lease, self._sight, asked_at)
        self.holder = str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
        move = decide(lease, self._sight, identity=self._identity, now=asked_at)
        if move is Move.WAIT:
            self._until = float("-inf")
            return
        await self._write(lease, self._identity)
        self._tell()  # what was left undone while the Lease had run out is to be looked at again
        self._until = asked_at + self._seconds
        self.holder = self._identity

    async def _read(self) -> Document | None:
        try:
            return await self._api.get(objects.LEASES, self._namespace, self._name)
        except ApiError as error:
            if error.gone:
                return None
            raise

    async def _write(self, lease: Document | None, identity: str) -> None:
        spec = record(lease, identity=identity, seconds=self._seconds, moment=self._wall())
        if lease is None:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
            await self._api.create(objects.LEASES, self._namespace, body | {"spec": spec})
        else:
            await self._api.replace(objects.LEASES, self._namespace, self._name, lease | {"spec": spec})

    def _tell(self) -> None:
        if self.leading != self._told:
            self._told = self.leading
            log.info("%s the lease %s/%s", "holding" if self._told else "not holding", self._namespace, self._name)
            self._changed(self._told)
