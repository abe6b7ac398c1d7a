"""Nothing is lost on a real kubelet when pods go for a planned reason: official client, no retries, final markers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.cluster.load import Load
from tests.cluster.servers import Servers, eventually
from tests.node.documents import OTHER_IMAGE, SERVER, SHORT, SHORT_DRAIN_SECONDS, SYSTEM, UNGATED, engine, server
from tests.node.loads import CLIENTS, address_of, under_load
from tests.node.release import AnyNode, Release
from tests.node.timeline import Timeline
from tests.node.witness import Witness

REPLICAS = 2
STREAMS = 3
"""Of each pod before a step, so that one is left when its deletion is seen."""


@dataclass
class Operations:
    """What people do to a served model and to Tailrace; each returns when it is asked for, or when it is over."""

    node: AnyNode
    servers: Servers
    release: Release

    def restart(self) -> None:
        self.servers.kubectl("rollout", "restart", f"deployment/{SERVER}")

    def change_image(self) -> None:
        self.servers.apply(server(replicas=REPLICAS, container=engine(image=OTHER_IMAGE)))

    def undo(self) -> None:
        self.servers.kubectl("rollout", "undo", f"deployment/{SERVER}")

    def evict_all(self) -> None:
        """Ask for every pod until it is granted, as `kubectl drain` does; the budget lets one go at a time."""
        self.servers.apply(budget())
        waiting = set(self.running())

        def all_are_evicted() -> bool:
            waiting.difference_update([name for name in waiting if self._is_evicted(name)])
            return not waiting

        eventually(all_are_evicted, seconds=120, what="every pod evicted")
        self.servers.kubectl("delete", "pdb", SERVER)

    def delete_pod(self) -> None:
        self.servers.kubectl("delete", "pod", self.running()[0], "--wait=false")

    def scale_down(self) -> None:
        self.servers.kubectl("scale", f"isvr/{SERVER}", "--replicas=1")

    def upgrade_tailrace(self) -> None:
        """Upgrade the release so that its replicas roll, and wait until no old one is left."""
        before = self._replicas()
        self.release.install("--set", "podAnnotations.example\\.com/changed=yes")
        eventually(lambda: not before & self._replicas(), seconds=60, what="old replicas gone")

    def running(self) -> list[str]:
        """Return the names of the pods that are not being deleted."""
        pods = self.servers.pods(SERVER)
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _replicas(self) -> set[str]:
        pods = self.node.get("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")["items"]
        return {pod["metadata"]["uid"] for pod in pods}

    def _is_evicted(self, name: str) -> bool:
        space = self.servers.namespace
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": space}}
        path = f"/api/v1/namespaces/{space}/pods/{name}/eviction"
        result = self.node.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body), check=False)
        assert result.returncode == 0 or "disruption budget" in result.stderr, result.stderr
        return result.returncode == 0


def budget() -> dict[str, object]:
    """Return a budget that lets one of the pods go at a time."""
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"tailrace.dev/server": SERVER}}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": SERVER}, "spec": spec}


@dataclass
class Steps:
    """Runs one operation after the other under one load. The next begins while pods of the last one still drain."""

    servers: Servers
    witness: Witness
    lines: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)

    async def run(self, act: Callable[[], None], *, goes: int, left: int = REPLICAS) -> None:
        """Run one, until so many pods of the model are being deleted and so many are ready."""
        name, began, before = act.__name__, time.monotonic(), set(self.witness.going)
        await asyncio.to_thread(
            eventually, self._every_pod_streams, seconds=20, what=f"{STREAMS} streams from every pod"
        )
        await asyncio.to_thread(act)
        await self.witness.going_away(len(before) + goes)
        await asyncio.to_thread(self.servers.wait_ready, SERVER, left)
        went = [going for uid, going in self.witness.going.items() if uid not in before]
        self.idle += [name] if went and not any(going.streaming for going in went) else []
        streams = ", ".join(str(going.streaming) for going in went)
        took, lost = time.monotonic() - began, len(self.witness.load.losses)
        self.lines.append(
            f"{name}: {took:.1f} s, {len(went)} pods went with {streams or 'no'} streams; {lost} lost so far"
        )

    def _every_pod_streams(self) -> bool:
        pods = [pod for pod in self.servers.pods(SERVER) if "deletionTimestamp" not in pod["metadata"]]
        return all(len(self.witness.load.streaming_from(address_of(pod))) >= STREAMS for pod in pods)


async def test_no_stream_is_lost_by_anything_that_is_planned(
    node: AnyNode, servers: Servers, release: Release, request: pytest.FixtureRequest
) -> None:
    asked = Operations(node, servers, release)
    async with under_load(servers, release) as (load, witness):
        steps = Steps(servers, witness)
        async with Timeline(node.pod_logs, witness) as timeline:
            await steps.run(asked.restart, goes=2)
            await steps.run(asked.change_image, goes=2)
        await steps.run(asked.undo, goes=2)
        await steps.run(asked.evict_all, goes=2)
        await steps.run(asked.delete_pod, goes=1)
        await steps.run(asked.upgrade_tailrace, goes=0)
        await steps.run(asked.scale_down, goes=1, left=1)
        await witness.gone(len(witness.going))
    servers.kubectl("scale", f"isvr/{SERVER}", "--replicas=2")
    request.node.add_report_section("call", "timeline", "\n".join([timeline.text(load), *steps.lines]))
    assert not load.losses, f"{steps.lines}\n{load.losses[:3]}"
    assert len(load.records) > CLIENTS
    assert not steps.idle, f"the run is invalid: no stream ran at any pod when it was deleted: {steps.idle}"
    assert timeline.in_order(load), timeline.text(load)
    await asyncio.to_thread(servers.wait_ready, SERVER, 2)


async def test_without_the_gate_a_restart_loses_streams(servers: Servers, release: Release) -> None:
    await asyncio.to_thread(servers.wait_ready, UNGATED, 1)
    async with under_load(servers, release, model=UNGATED) as (load, witness):
        await asyncio.to_thread(servers.kubectl, "rollout", "restart", f"deployment/{UNGATED}")
        await witness.gone(1)
    servers.kubectl("delete", "isvr", UNGATED, "--wait=false")
    assert load.losses, "engines that get SIGTERM at once must cost streams, or the proof proves nothing"


async def test_at_the_deadline_a_stream_ends_with_an_error_that_says_so_and_the_pod_goes(
    servers: Servers, release: Release
) -> None:
    await asyncio.to_thread(servers.wait_ready, SHORT, 1)
    async with Load(release.proxy, SHORT, clients=0) as load, Witness(servers, load) as witness:
        stream = asyncio.create_task(load.one(2000, "x"))
        await asyncio.to_thread(eventually, lambda: [one for one in load.running if one.received], seconds=10)
        servers.kubectl("delete", "isvr", SHORT, "--wait=false")
        record = await stream
        await witness.gone(1)  # of this model or another: each has to be gone, then
    (pod,) = (one for one in witness.going.values() if one.name.startswith(SHORT))
    assert pod.finalizer_gone_at is not None
    assert SHORT_DRAIN_SECONDS <= pod.finalizer_gone_at - pod.deleted_at <= SHORT_DRAIN_SECONDS + 10
    assert record.received
    assert "drain" in record.error
    await asyncio.to_thread(eventually, lambda: servers.events("DrainDeadlineExceeded"), seconds=10)
