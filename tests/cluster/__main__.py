"""`python -m tests.cluster`: bring an embedded cluster up for people and for `make demo`.

up     start the cluster in the foreground until SIGINT or SIGTERM, and print where its kubeconfig is
down   end the cluster that runs in --work-dir
env    print shell lines that point kubectl at it: eval "$(python -m tests.cluster env)"
logs   print the logs of one pod's containers
build  build the cluster's binaries, unless they are in the cache already
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from tests.cluster import tools
from tests.cluster.controlplane import ClusterError
from tests.cluster.embedded import DEFAULT_NODES, EmbeddedCluster

DEFAULT_WORKDIR = Path(".tailrace") / "cluster"
STOP_SECONDS = 30.0


def up(arguments: argparse.Namespace) -> None:
    """Run a cluster until a signal comes; files of an earlier run in the same folder are removed first."""
    workdir: Path = arguments.work_dir.resolve()
    if _running_pid(workdir):
        raise ClusterError(f"a cluster already runs in {workdir}: end it with `down` or choose another --work-dir")
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    _pid_file(workdir).write_text(str(os.getpid()))
    with EmbeddedCluster(workdir, arguments.nodes) as cluster:
        print(cluster.kubeconfig, flush=True)
        stop.wait()
    _pid_file(workdir).unlink()


def down(arguments: argparse.Namespace) -> None:
    """Ask the cluster of a work folder to end and wait until it has."""
    pid = _running_pid(arguments.work_dir)
    if pid is None:
        print(f"no cluster runs in {arguments.work_dir}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _running_pid(arguments.work_dir):
        if time.monotonic() > deadline:
            raise ClusterError(f"process {pid} did not end within {STOP_SECONDS:.0f} s")
        time.sleep(0.1)


def env(arguments: argparse.Namespace) -> None:
    """Print the variables for a shell."""
    kubectl = tools.ensure(["kubectl"])["kubectl"]
    print(f"export KUBECONFIG={arguments.work_dir.resolve() / 'admin.kubeconfig'}")
    print(f"export PATH={kubectl.parent}:$PATH")


def logs(arguments: argparse.Namespace) -> None:
    """Print every container's log of every pod whose name starts with the given one."""
    folders = sorted((arguments.work_dir / "pods").glob(f"{arguments.namespace}_{arguments.pod}*"))
    if not folders:
        raise ClusterError(f"no pod named {arguments.pod}* has run in namespace {arguments.namespace}")
    for file in sorted(file for folder in folders for file in folder.glob("*/*.log")):
        print(f"==> {file.relative_to(arguments.work_dir / 'pods')}")
        print(file.read_text(errors="replace"))


def build(_: argparse.Namespace) -> None:
    """Build what the cluster is made of, with progress."""
    tools.ensure()


def _pid_file(workdir: Path) -> Path:
    return workdir / "cluster.pid"


def _running_pid(workdir: Path) -> int | None:
    try:
        pid = int(_pid_file(workdir).read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = root.add_subparsers(required=True)
    for action in (up, down, env, logs, build):
        command = commands.add_parser(action.__name__, help=action.__doc__)
        command.add_argument("--work-dir", type=Path, default=DEFAULT_WORKDIR)
        command.set_defaults(action=action)
        if action is up:
            command.add_argument("--nodes", type=Path, default=DEFAULT_NODES, help="YAML file of nodes to play")
        if action is logs:
            command.add_argument("pod", help="the pod's name, or how it starts")
            command.add_argument("--namespace", "-n", default="default")
    return root


def main() -> int:
    """Run one command; 1 when it failed, with the reason on stderr."""
    arguments = parser().parse_args()
    try:
        arguments.action(arguments)
    except (ClusterError, tools.ToolError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
