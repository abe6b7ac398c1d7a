"""`python -m tests.cluster.kubelet`: a stand-in kubelet that runs pods as processes of this machine."""

import argparse
import asyncio
import logging
from pathlib import Path

from tests.cluster.kubelet.agent import serve
from tests.cluster.kubelet.options import Options


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.kubelet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="how to reach the API server")
    parser.add_argument("--nodes", type=Path, required=True, help="YAML file that describes the nodes to play")
    parser.add_argument("--workdir", type=Path, required=True, help="folder for logs and volumes of pods")
    parser.add_argument("--backoff-base", type=float, default=1.0, help="seconds before the second restart")
    parser.add_argument("--backoff-cap", type=float, default=10.0, help="longest wait before a restart, in seconds")
    parser.add_argument("--heartbeat", type=float, default=3.0, help="seconds between renewals of a node's Lease")
    parser.add_argument("--reuse-addresses", action="store_true", help="hand out the lowest free pod address again")
    return Options(**vars(parser.parse_args()))


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(parse()))


if __name__ == "__main__":
    main()
