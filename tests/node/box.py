"""A machine in a box: network, mounts and processes of their own, gone with the box's first process.

The kernel removes them. Whatever a kubelet, containerd, kube-proxy and containers leave behind (shims, mounts, bridges,
firewall rules) goes with the box, also when the tests are killed. Only control groups and files outlive it: see
`cgroups`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster.controlplane import ClusterError
from tests.cluster.processes import ManagedProcess
from tests.cluster.replica import children
from tests.node.addresses import ADDRESSES, Addresses

INIT = Path(__file__).with_name("init.py")
WIRE_HOST, WIRE_NODE = "tr-host", "tr-node"
START_SECONDS = 10.0


class Box:
    """The box; a context manager is not needed, `stop` may be called at any time."""

    def __init__(self, logs: Path, addresses: Addresses = ADDRESSES) -> None:
        self._logs = logs
        self._addresses = addresses
        self._holder: ManagedProcess | None = None
        self._init = 0

    def start(self) -> None:
        """Start the first process and lay the wire between the box and this machine."""
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        log = self._logs / "box.log"
        self._holder = ManagedProcess("box", [*unshare, sys.executable, "-I", "-S", str(INIT)], log)
        deadline = time.monotonic() + START_SECONDS
        while "ready" not in log.read_text():
            if not self._holder.alive() or time.monotonic() > deadline:
                raise ClusterError(f"the node's namespaces did not come up:\n{self._holder.tail()}")
            time.sleep(0.02)
        self._init = children(self._holder.pid)[0]
        self._lay_wire()

    def stop(self) -> None:
        """End every process in the box, and with the last one its interfaces, mounts and rules."""
        if self._holder is not None:
            with suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
            self._holder.kill()
            self._holder = None

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` in the box."""
        return ["nsenter", f"--target={self._init}", "--net", "--mount", "--pid", "--", *command]

    def run(self, *command: str, seconds: float = 60) -> str:
        """Run a command in the box; return what it printed; ClusterError when it failed."""
        return _run(self.inside(command), seconds)

    def _lay_wire(self) -> None:
        at = self._addresses
        _run(["ip", "link", "add", WIRE_HOST, "type", "veth", "peer", "name", WIRE_NODE, "netns", str(self._init)])
        _run(["ip", "address", "add", f"{at.host}/30", "dev", WIRE_HOST])
        _run(["ip", "link", "set", WIRE_HOST, "up"])
        self.run("ip", "address", "add", f"{at.node}/30", "dev", WIRE_NODE)
        self.run("ip", "link", "set", WIRE_NODE, "up")
        self.run("ip", "route", "add", "default", "via", at.host)
        self.run("ip", "address", "add", f"{at.dns}/32", "dev", "lo")
        for network in (at.pods, at.services):
            _run(["ip", "route", "add", network, "via", at.node])


class BoxedProcess:
    """A process in the box, started when made; it can be stopped, killed and started again."""

    def __init__(self, box: Box, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self._door = ManagedProcess(name, box.inside(command), log)

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self._door.log

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._door.alive()

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        return self._door.tail(lines)

    def start(self) -> None:
        """Run it again, after `stop` or `kill`."""
        self._door.start()

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Send SIGTERM, wait at most `grace_seconds`, then kill."""
        self._end(signal.SIGTERM, grace_seconds)

    def kill(self) -> None:
        """End it at once. What it has started lives on."""
        self._end(signal.SIGKILL, 5.0)

    def forget(self) -> None:
        """Take note that it is gone, after the end of its box."""
        self._door.kill()

    def _end(self, number: signal.Signals, grace_seconds: float) -> None:
        self._signal(number)
        deadline = time.monotonic() + grace_seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self._door.wait(grace_seconds)

    def _signal(self, number: signal.Signals) -> None:
        for pid in children(self._door.pid) if self.alive() else ():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _run(command: Sequence[str], seconds: float = 60) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    if result.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
