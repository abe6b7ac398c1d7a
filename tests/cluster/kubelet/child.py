"""One process of a container, watched by the event loop through its pidfd."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.processes import launcher


class Child:
    """A started process that leads a process group; the group is its container."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                launcher(command),
                env=dict(env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def terminate(self) -> None:
        """Send SIGTERM to the first process, as a container runtime does."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        if not self.ended.done():
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.kill()  # a container ends with its first process
        self.ended.set_result(exit_code(self._process.wait()))


def exit_code(returncode: int) -> int:
    """Return what a container runtime reports: 128 + the signal's number for a process ended by a signal."""
    return returncode if returncode >= 0 else 128 - returncode
