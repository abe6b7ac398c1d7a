"""The first process of a box: hides this machine's state from what runs there, then reaps until it is killed."""

import os
import signal
import subprocess
from pathlib import Path

HIDDEN = ("/run", "/var/lib", "/var/log")
"""Where node programs keep state at paths that no setting changes."""


def main() -> None:
    """Prepare and say `ready`; orphans of the box become children of this process."""
    for folder in HIDDEN:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    print("ready", flush=True)
    while True:
        signal.sigwait({signal.SIGCHLD})
        reap()


def reap() -> None:
    """Take the exit of every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main()
