"""Where the node's machine, its pods and its Services are: blocks set aside for tests (RFC 2544), never routed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Addresses:
    """One suite's addresses: the host's end of the wire, the node, its pods, its Services."""

    host: str = "198.18.0.1"
    node: str = "198.18.0.2"
    wire: str = "198.18.0.0/30"
    pods: str = "198.18.1.0/24"
    services: str = "198.18.2.0/24"
    api_service: str = "198.18.2.1"
    dns: str = "198.18.2.10"


ADDRESSES = Addresses()
