"""Settings of the stand-in kubelet."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What one stand-in kubelet process is told at start; durations in seconds."""

    kubeconfig: Path
    nodes: Path
    workdir: Path
    backoff_base: float = 1.0
    backoff_cap: float = 10.0
    heartbeat: float = 3.0
    reuse_addresses: bool = False

    @property
    def pods(self) -> Path:
        """The folder with one folder per pod: logs and volumes."""
        return self.workdir / "pods"
