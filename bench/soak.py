"""`make soak`: rollouts, deletions, kills and outages under load, round after round. Minutes by default.

    make soak ARGS="--minutes 60"

On the embedded cluster, an operator behind a proxy that makes its API server fail. Proxied streams and clients of
/route run all the time; memory, open files and asyncio tasks are measured after each step, and each round ends with a
quiet moment in which the invariants of the fault tests are held against all that happened. Processes are killed in the
first third only, so that the rest is one life whose growth can be seen. Exit code 1 when a request was lost (but for
those whose pod was deleted by force), an invariant was broken, or something grows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench.growth import Limit, growth, longest_life
from bench.process import counted, descriptors, rss_kib, tasks
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.load import Record
from tests.cluster.replica import install
from tests.faults import actions
from tests.faults.calls import writes
from tests.faults.rig import Rig

NODES = Path(__file__).resolve().parent.parent / "tests" / "faults" / "nodes.yaml"
REPLICAS = 3
CLIENTS = 8
TOKENS = (20, 120)
OUTAGE_SECONDS = 6.0
STORM_WRITES = 12
PATIENCE_SECONDS = 90.0
FORCED_SECONDS = 3.0
"""How long after the order to delete a pod by force a request may still have been sent there."""

KILLS_UNTIL = 1 / 3
MEASURED_FROM = 0.6
"""Shares of the run: growth is judged from there on, when caches and pools are warm."""

MEMORY = Limit(amount=8 * 1024, share=0.08)
MANY = Limit(amount=15, share=0.1)
"""For open files and tasks."""


@dataclass
class Soak:
    """One run: what was done, what was measured, what went wrong."""

    rig: Rig
    rng: Random
    seconds: float
    counts: Path
    began: float = field(default_factory=time.monotonic)
    rounds: int = 0
    requests: int = 0
    forced: dict[str, list[float]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    excused: int = 0

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{self.elapsed():6.0f} s] {text}", flush=True)

    async def run(self) -> None:
        """Go round until the time is up."""
        while self.elapsed() < self.seconds:
            self.rounds += 1
            await self.round()

    async def round(self) -> None:
        """Break and roll out under load, once each in random order; then be quiet, check and measure."""
        records: list[Record] = []
        async with self.rig.direct() as direct:
            async with self.rig.load(clients=CLIENTS, tokens=TOKENS) as load:
                for name in self.rng.sample(list(STEPS), len(STEPS)):
                    await self.step(name, STEPS[name])
                if self.elapsed() < self.seconds * KILLS_UNTIL:
                    await self.step("kill of the child", kill_child)
            if self.elapsed() < self.seconds * KILLS_UNTIL:
                await self.step("kill of the operator", kill_operator)
        records += [*load.records.values(), *direct.records.values()]
        await self.check(records)

    async def step(self, name: str, act: Step) -> None:
        """Do one thing and wait until its effect is over."""
        began = time.monotonic()
        try:
            await act(self)
            await self.rig.settle(seconds=PATIENCE_SECONDS)
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")
        self.done[name] += 1
        self.measure()
        self.say(f"round {self.rounds}: {name} {time.monotonic() - began:.1f} s; {self.measured()}")

    async def check(self, records: list[Record]) -> None:
        """Count what was lost, hold the round against the invariants, and forget."""
        lost = [record for record in records if not record.complete]
        found = [record for record in lost if not self.is_forced(record)]
        self.requests += len(records)
        self.excused += len(lost) - len(found)
        self.wrong += [f"lost: {record}" for record in found]
        try:
            await self.rig.check(records)
        except AssertionError as error:
            self.wrong += str(error).splitlines()
        self.rig.forget()
        self.say(f"round {self.rounds}: {len(records)} requests, {len(found)} lost, {len(self.wrong)} wrong")

    def is_forced(self, record: Record) -> bool:
        """Tell whether a request was at a pod that was deleted by force."""
        died = self.forced.get(record.endpoint, ())
        return any(record.started_at < at + FORCED_SECONDS and (record.ended_at or at) >= at for at in died)

    def measured(self) -> str:
        """Return the newest values."""
        return ", ".join(f"{what} {samples[-1][2]:.0f}" for what, samples in self.samples.items())

    def measure(self) -> None:
        """Measure both processes."""
        child = self.rig.child()
        processes = {"operator": self.rig.process.pid} | ({"child": child} if child else {})
        for name, pid in processes.items():
            values = {"memory": rss_kib([pid]), "files": descriptors([pid]), "tasks": tasks(pid, self.counts)}
            for what, value in values.items():
                if value is not None:
                    self.samples.setdefault(f"{name} {what}", []).append((pid, self.elapsed(), value))


Step = Callable[[Soak], Awaitable[None]]


async def roll_out(soak: Soak) -> None:
    """Replace every pod."""
    note = uuid.uuid4().hex[:8]
    await asyncio.to_thread(soak.rig.roll_out, note)
    await soak.rig.rolled_out(note, seconds=PATIENCE_SECONDS)


async def delete_pod(soak: Soak) -> None:
    """Delete one pod as people do."""
    pod = soak.rng.choice(soak.rig.servers.pods("alpha"))
    await asyncio.to_thread(soak.rig.servers.kubectl, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    await soak.rig.gone_from_the_doors(pod, seconds=PATIENCE_SECONDS)


async def delete_by_force(soak: Soak) -> None:
    """Let one pod be gone without a farewell; what it was answering is lost, and only that."""
    pod = soak.rng.choice(soak.rig.servers.pods("alpha"))
    soak.forced.setdefault(f"{pod['status']['podIP']}:8000", []).append(time.time())
    await asyncio.to_thread(soak.rig.vanish, pod)
    await soak.rig.gone_from_the_doors(pod, seconds=PATIENCE_SECONDS)


async def scale(soak: Soak) -> None:
    """Add a pod and take one away again."""
    for replicas in (REPLICAS + 1, REPLICAS):
        await asyncio.to_thread(soak.rig.servers.kubectl, "scale", "isvr/alpha", f"--replicas={replicas}")
        await asyncio.to_thread(soak.rig.servers.wait_ready, "alpha", replicas, seconds=PATIENCE_SECONDS)


async def refused_connections(soak: Soak) -> None:
    """Take the API server away for a while, in the middle of a deletion."""
    since = time.time()
    await asyncio.to_thread(_delete_any, soak)
    with soak.rig.proxy.away():
        await asyncio.sleep(OUTAGE_SECONDS)
    soak.rig.note_away(since)


async def silence(soak: Soak) -> None:
    """Let the API server accept everything and answer nothing for a while, in the middle of a deletion."""
    since = time.time()
    await asyncio.to_thread(_delete_any, soak)
    with soak.rig.proxy.silent():
        await asyncio.sleep(OUTAGE_SECONDS)
    soak.rig.note_away(since)


async def storm(soak: Soak) -> None:
    """Let writes fail, or succeed in silence, during a rollout."""
    kinds = (actions.refuse(409), actions.refuse(500), actions.lose_answer, actions.spoil_answer(504))
    with soak.rig.proxy.failing(writes, actions.in_turn(*kinds), STORM_WRITES):
        await roll_out(soak)


async def kill_child(soak: Soak) -> None:
    """Kill the Kubernetes side in the middle of a rollout."""
    note = uuid.uuid4().hex[:8]
    await asyncio.to_thread(soak.rig.roll_out, note)
    await asyncio.sleep(soak.rng.uniform(0, 2))
    soak.rig.kill_child()
    await soak.rig.rolled_out(note, seconds=PATIENCE_SECONDS)


async def kill_operator(soak: Soak) -> None:
    """Kill the leader with its child in the middle of a rollout; clients of /route must not lose anything by it."""
    note = uuid.uuid4().hex[:8]
    await asyncio.to_thread(soak.rig.roll_out, note)
    await asyncio.sleep(soak.rng.uniform(0, 2))
    await asyncio.to_thread(soak.rig.kill)
    await soak.rig.restart()
    await soak.rig.rolled_out(note, seconds=PATIENCE_SECONDS)


def _delete_any(soak: Soak) -> None:
    pod = soak.rng.choice(soak.rig.servers.pods("alpha"))
    soak.rig.servers.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")


STEPS: dict[str, Step] = {
    "rollout": roll_out,
    "deletion of a pod": delete_pod,
    "deletion by force": delete_by_force,
    "scale up and down": scale,
    "API server refuses connections": refused_connections,
    "API server is silent": silence,
    "writes fail in a storm": storm,
}


@contextmanager
def fresh_namespace(cluster: EmbeddedCluster) -> Iterator[str]:
    """Yield a namespace that is ready for pods."""
    name = f"soak-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield name


def growing(soak: Soak) -> list[str]:
    """Print how each series went; return those that grow."""
    print(f"\n{'':<20}{'values':>8}{'first':>12}{'rise':>10}{'an hour':>12}")
    found = []
    for what, samples in soak.samples.items():
        points = longest_life([one for one in samples if one[1] >= soak.seconds * MEASURED_FROM])
        unit, limit = ("KiB", MEMORY) if what.endswith("memory") else ("", MANY)
        seen = growth(points, limit)
        if seen is None:
            print(f"{what:<20}{len(points):>8}  too few to say: take more minutes")
            continue
        verdict = f"grows: at most {limit.of(seen.first):.0f} allowed" if seen.grows else "flat"
        print(
            f"{what:<20}{len(points):>8}{seen.first:>12.0f}{seen.rise:>+10.1f}{seen.per_hour:>+12.0f} "
            f"{unit:<4}{verdict}"
        )
        found += [f"{what} grows by {seen.rise:.0f} {unit}"] if seen.grows else []
    return found


def report(soak: Soak) -> int:
    """Print what happened; return the exit code."""
    print(
        f"\n{soak.rounds} rounds in {soak.elapsed():.0f} s: "
        + ", ".join(f"{n} x {what}" for what, n in soak.done.items())
    )
    wrong = soak.wrong + growing(soak)
    lost = sum(line.startswith("lost") for line in wrong)
    print(f"\n{soak.requests} requests, {lost} lost; {soak.excused} ended with a pod that was deleted by force")
    for line in wrong:
        print(f"WRONG: {line}")
    print("nothing is wrong" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="how long to begin new rounds (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of things (default 1)")
    options = parser.parse_args()
    with EmbeddedCluster(nodes=NODES, kubelet_flags=("--reuse-addresses",)) as cluster:
        install(cluster)
        with fresh_namespace(cluster) as namespace, TemporaryDirectory() as counts:
            rig = Rig(cluster, namespace)
            rig.replica.environment = counted(Path(counts), rig.replica.environment)
            with rig:
                rig.servers.serve("alpha", replicas=REPLICAS)
                soak = Soak(rig, Random(options.seed), options.minutes * 60, Path(counts))
                asyncio.run(soak.run())
                return report(soak)


if __name__ == "__main__":
    sys.exit(main())
