"""What the gate is told at start."""

from dataclasses import dataclass
from pathlib import Path

from tailrace.engines.families import Family
from tailrace.gate.decision import Limits


@dataclass(frozen=True, slots=True)
class RouterName:
    """A name (or address) and the admin port of one or many routers."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``, as it is configured."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Everything the gate needs to know; one pod, one gate. Times in seconds."""

    pod_uid: str
    routers: tuple[RouterName, ...]
    listen_host: str
    port: int
    token_file: Path
    family: Family
    engine_port: int
    limits: Limits
    hello_seconds: float = 60.0


def parse_routers(text: str) -> tuple[RouterName, ...]:
    """Read `host:port,host:port`, IPv6 addresses in brackets; ValueError says which entry is wrong."""
    names = tuple(_router(entry.strip()) for entry in text.split(",") if entry.strip())
    if not names:
        raise ValueError("routers: give at least one host:port")
    return names


def _router(entry: str) -> RouterName:
    host, _, port = entry.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (
        not bare
        or not port.isascii()
        or not port.isdigit()
        or not 0 < int(port) < 65536
        or (":" in bare and bare == host)
    ):
        raise ValueError(f"routers: {entry!r} is not host:port (an IPv6 address goes in brackets)")
    return RouterName(bare, int(port))
