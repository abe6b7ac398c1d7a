"""Watches pods go: what streamed from each at its deletion, and when each step of its drain was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Self

from tests.cluster.load import Load
from tests.cluster.servers import Document, Servers, eventually

OURS = "tailrace.dev/drain"
POLL_SECONDS = 0.2


@dataclass
class Going:
    """One pod that goes away; times are seconds since the epoch."""

    name: str
    uid: str
    address: str
    streaming: int
    seen_at: float
    deleted_at: float
    finalizer_gone_at: float | None = None


@dataclass
class Witness:
    """Polls the pods of a namespace until left; an async context manager. `going` is by uid."""

    servers: Servers
    load: Load
    port: int = 8000
    going: dict[str, Going] = field(default_factory=dict)
    _whole: dict[str, Going] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def gone(self, number: int, *, seconds: float = 60) -> None:
        """Wait until so many pods were seen deleting and none is left that terminates."""
        await asyncio.to_thread(eventually, lambda: self._gone(number), seconds=seconds, what=f"{number} pods gone")

    async def going_away(self, number: int, *, seconds: float = 60) -> None:
        """Wait until so many pods were seen deleting."""
        await asyncio.to_thread(
            eventually, lambda: len(self.going) >= number, seconds=seconds, what=f"{number} pods being deleted"
        )

    def _gone(self, number: int) -> bool:
        return len(self.going) >= number and all(one.finalizer_gone_at for one in self.going.values())

    async def _watch(self) -> None:
        while True:
            pods = await asyncio.to_thread(self.servers.pods)
            self._note(pods, time.time())
            await asyncio.sleep(POLL_SECONDS)

    def _note(self, pods: list[Document], now: float) -> None:
        for pod in pods:
            self._note_pod(pod, now)
        for uid in self._whole.keys() - self.going.keys() - {pod["metadata"]["uid"] for pod in pods}:
            self.going[uid] = replace(self._whole[uid], seen_at=now, deleted_at=now)  # it went between two polls
        held = {pod["metadata"]["uid"] for pod in pods if OURS in pod["metadata"].get("finalizers", ())}
        for going in self.going.values():
            if going.uid not in held and going.finalizer_gone_at is None:
                going.finalizer_gone_at = now

    def _note_pod(self, pod: Document, now: float) -> None:
        about = pod["metadata"]
        uid, address = about["uid"], f"{pod['status'].get('podIP')}:{self.port}"
        streaming = len(self.load.streaming_from(address))
        as_it_is = Going(about["name"], uid, address, streaming, now, now)
        if "deletionTimestamp" not in about:
            self._whole[uid] = as_it_is
        elif uid not in self.going:
            deleted = datetime.fromisoformat(about["deletionTimestamp"]).timestamp()
            deleted -= about.get("deletionGracePeriodSeconds", 0)
            streaming = self._whole.get(uid, as_it_is).streaming
            self.going[uid] = replace(as_it_is, streaming=streaming, deleted_at=deleted)


class PodLog:
    """What a container of a pod writes. Files stay open: the kubelet removes them with the pod, last lines and all."""

    def __init__(self, folder: Path, pod: Going, container: str) -> None:
        self._folder = folder
        self._pattern = f"*_{pod.name}_{pod.uid}/{container}/*.log"
        self._files: dict[Path, IO[str]] = {}

    def news(self) -> Iterator[tuple[float, str]]:
        """Yield time and text of the lines since the last call."""
        for path in sorted(set(self._folder.glob(self._pattern)) - self._files.keys()):
            self._files[path] = path.open()
        for file in self._files.values():
            for line in _whole_lines(file):
                stamp, _, _, text = line.split(" ", 3)
                yield datetime.fromisoformat(stamp).timestamp(), text

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def _whole_lines(file: IO[str]) -> Iterator[str]:
    """Yield lines, and leave the last one for later while it is being written."""
    while True:
        begin = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(begin)
            return
        yield line
