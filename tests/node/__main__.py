"""`python -m tests.node`: a cluster of one real node for people, and what is left of one.

up      start the node in the foreground until SIGINT or SIGTERM, and print where its kubeconfig is
build   build the node's binaries and the images, unless they are in the cache already
clean   remove what a node that was killed has left: control groups and files
"""

import argparse
import signal
import sys
import threading

from tests.cluster import tools
from tests.cluster.controlplane import ClusterError
from tests.node import image, llama_image, nodes


def up() -> None:
    """Run a node until a signal comes."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with nodes.NodeCluster() as cluster:
        print(cluster.kubeconfig, flush=True)
        stop.wait()


def build() -> None:
    """Build what the node is made of, with progress; nothing where no node can run."""
    if lacking := nodes.missing():
        print(f"tests/node will be skipped: {lacking}", file=sys.stderr)
        return
    tools.ensure((*tools.CONTROL_PLANE, *tools.NODE, "helm"))
    image.ensure()
    llama_image.ensure()


def clean() -> None:
    """Remove what is left."""
    nodes.clean()


def main() -> int:
    """Run one command; 1 when it failed, with the reason on stderr."""
    commands = {action.__name__: action for action in (up, build, clean)}
    parser = argparse.ArgumentParser(
        prog="python -m tests.node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=commands)
    try:
        commands[parser.parse_args().command]()
    except (ClusterError, tools.ToolError, image.ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
