"""The child's end of the pipe to its parent: standard input and output, kept from everybody else."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from tailrace.link import Message, encode, receive

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


class Pipe:
    """Messages from and to the parent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> Message | None:
        """Return the next message, None when the parent has gone."""
        return await receive(self._reader)

    async def send(self, message: Message) -> None:
        """Send a message; waits while the parent is slow. ConnectionError when it has gone."""
        self._writer.write(encode(message))
        await self._writer.drain()


def take_standard_streams() -> tuple[int, int]:
    """Return file descriptors of the pipe; from now on what is printed goes to standard error.

    A stray ``print`` of a library would otherwise end up between two messages.
    """
    sys.stdout.flush()
    source, target = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return source, target


async def open_pipe(source: int, target: int) -> Pipe:
    """Return the pipe over two file descriptors, which it then owns."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(target, "wb", 0))
    return Pipe(reader, asyncio.StreamWriter(transport, protocol, None, loop))


def end_with_parent() -> None:
    """Ask the system for SIGTERM when the parent dies, where the system can do that; the closed pipe says it too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
