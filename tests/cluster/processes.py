"""Child processes of the embedded cluster: each in a session of its own, logged to a file, dead with its parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")


def launcher(command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` as a process that the kernel kills when the calling one dies.

    The kernel watches the **thread** that starts the process, so start processes from threads that live as long.
    """
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command]


class ManagedProcess:
    """One command, started when made; `stop` ends it by its own pid, politely first, and `start` runs it again."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = env
        log.parent.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Run the command; used to bring a stopped or killed process back with the same flags and ports."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                launcher(self._command),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._env,
            )

    @property
    def pid(self) -> int:
        """The process id; it stays the same when the launcher becomes the command."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether the command still runs."""
        return self._process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log, for error messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Send SIGTERM, wait at most `grace_seconds`, then kill; returns when the process is gone."""
        self._signal(signal.SIGTERM)
        self.wait(grace_seconds)

    def wait(self, seconds: float) -> None:
        """Return when the process is gone; kill it after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once, as when its machine loses power."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP) until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process run on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
