"""Processes that are measured: pinned to a core, with their children, through /proc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
PROBE = Path(__file__).with_name("probe")
START_SECONDS = 20.0
STOP_SECONDS = 10.0


def cores() -> tuple[int, int]:
    """Return a core for what is measured and one for everything else; the same one when there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def started(command: Sequence[str], core: int, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a command on one core for the time of the block; yield its process id. What it says goes nowhere."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # inherited by the child, whatever threads it starts
    try:
        process = subprocess.Popen(
            command, env=os.environ | (environment or {}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    finally:
        os.sched_setaffinity(0, mine)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int) -> None:
    """Return when something listens there; TimeoutError when nothing does in time."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port} after {START_SECONDS:g} s")


def children(pid: int) -> list[int]:
    """Return the living processes that this one has started."""
    return [int(entry.name) for entry in PROC.glob("[0-9]*") if _parent(entry) == pid]


def family(pid: int) -> list[int]:
    """Return the process and its children."""
    return [pid, *children(pid)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of these processes until now, user and kernel."""
    return sum(int(field) for pid in pids for field in _stat(PROC / str(pid))[11:13]) * TICK


def idle_seconds() -> float:
    """Return how long the machine's cores have had nothing to do, together."""
    return int((PROC / "stat").read_text().split(maxsplit=5)[4]) * TICK


def rss_kib(pids: Iterable[int]) -> int:
    """Return the resident memory of these processes together."""
    return sum(_field(PROC / str(pid) / "status", "VmRSS:") for pid in pids)


def pss_kib(pids: Iterable[int]) -> int:
    """Return the memory of these processes together, a page that several processes share divided among them."""
    return sum(_field(PROC / str(pid) / "smaps_rollup", "Pss:") for pid in pids)


def peak_kib(pids: Iterable[int]) -> int:
    """Return what these processes had resident at their highest, each at its own time."""
    return sum(_field(PROC / str(pid) / "status", "VmHWM:") for pid in pids)


def descriptors(pids: Collection[int]) -> int:
    """Return how many files and sockets these processes have open."""
    return sum(len(list((PROC / str(pid) / "fd").iterdir())) for pid in pids)


def counted(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which Python programs count their asyncio tasks into files of a folder."""
    paths = [str(PROBE), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "BENCH_TASKS_FOLDER": str(folder)}


def tasks(pid: int, folder: Path) -> int | None:
    """Return how many tasks a process last counted, None when it has not yet."""
    try:
        return int((folder / str(pid)).read_text())
    except (OSError, ValueError):
        return None


def _field(file: Path, field: str) -> int:
    lines = file.read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def _parent(process: Path) -> int:
    try:
        return int(_stat(process)[1])
    except OSError:
        return 0


def _stat(process: Path) -> list[str]:
    """Return the fields after the program's name, which may hold spaces."""
    return (process / "stat").read_text().rpartition(")")[2].split()
