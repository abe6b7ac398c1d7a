"""Small scripted children for the parent's end of the link."""

import asyncio
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.app.waiting import eventually

from tailrace.child import KubernetesChild, Patience
from tailrace.link import ChildHealth, Message

QUICK = Patience(backoff=(0.01, 0.02), stable=60.0, review=5.0, stop=0.5)

PRELUDE = """
import os, signal, struct, sys, time
from tailrace.core.model import EndpointGone
from tailrace.link import ChildHealth, Cordon, Cordoned, Desired, GateMark, Leave, Observed, Review, Reviewed
from tailrace.link import Stopping, encode
from pickle import loads

def exactly(count):
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data

def hear():
    return loads(exactly(struct.unpack(">I", exactly(4))[0]))

def send(message):
    os.write(1, encode(message))

def say(text):
    send(ChildHealth(0.0, 0.0, leader=False, holder=text))

def stay():
    while True:
        hear()
"""


class Family:
    """A parent, the children it starts one after the other, and what it heard of them; ends with the block.

    `script` runs as each child, in `folder`, with `send`, `say`, `hear` and `stay` of the prelude above.
    """

    def __init__(self, script: str, folder: Path, patience: Patience = QUICK) -> None:
        code = f"{PRELUDE}\nos.chdir({str(folder)!r})\n{script}"
        self.heard: list[Message] = []
        self.parent = KubernetesChild([sys.executable, "-c", code], self.hear, time.monotonic, patience)
        self.task: asyncio.Task[None] | None = None

    def hear(self, message: Message) -> None:
        """Take a message; tests replace this."""
        self.heard.append(message)

    @property
    def texts(self) -> list[str]:
        """What the children have said by `say`."""
        return [message.holder for message in self.heard if isinstance(message, ChildHealth)]

    async def said(self, *texts: str) -> None:
        """Wait until the children have said exactly this."""
        try:
            await eventually(lambda: len(self.texts) >= len(texts))
        finally:
            assert self.texts == list(texts)

    async def end(self) -> None:
        """Cancel the parent's loop and wait for its end."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.parent.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()


def exists(pid: int) -> bool:
    """Tell whether the process exists, as a zombie too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
