"""How a model server is run."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tailrace.sim.profile import Profile


class OnSigterm(StrEnum):
    """What SIGTERM does to requests in flight."""

    ABORT = "abort"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that `tailrace model-server` can be told."""

    models: tuple[str, ...]
    """Served names of the one model; the first labels the metrics."""
    adapters: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free port; the line on standard output names it."""
    profile: Profile = field(default_factory=Profile)
    speed: float = 1.0
    seed: int = 0
    startup_seconds: float = 0.0
    on_sigterm: OnSigterm = OnSigterm.ABORT
    request_log: Path | None = None
    faults: bool = False
    old_metric_names: bool = False
