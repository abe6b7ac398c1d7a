"""Replace this process by a command that dies with its parent: `python -I -S launch.py PARENT_PID COMMAND [ARG...]`.

A separate file rather than a `preexec_fn`, so that callers may have threads and may still use vfork.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
COMMAND_NOT_STARTED = 128


def main(parent: int, command: list[str]) -> None:
    """Bind this process to `parent`, then become `command`; exits 128 with a sentence when that cannot be done."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the prctl call took effect
        sys.exit(COMMAND_NOT_STARTED)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.exit(COMMAND_NOT_STARTED)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
