"""What is known about each container: the values that a pod's status is made from."""

from dataclasses import dataclass, field
from typing import Any

from tests.cluster.kubelet.objects import Object, is_sidecar, timestamp

CREATING = "ContainerCreating"
INITIALIZING = "PodInitializing"


@dataclass(frozen=True)
class Waiting:
    """Not running: not yet, or waiting for its next start."""

    reason: str
    message: str = ""

    def as_object(self) -> Object:
        """Return the API's form."""
        return {"waiting": {"reason": self.reason} | ({"message": self.message} if self.message else {})}


@dataclass(frozen=True)
class Running:
    """Running since `started_at` (seconds since the epoch)."""

    started_at: float

    def as_object(self) -> Object:
        """Return the API's form."""
        return {"running": {"startedAt": timestamp(self.started_at)}}


@dataclass(frozen=True)
class Terminated:
    """Ended with an exit code; times in seconds since the epoch."""

    exit_code: int
    started_at: float
    finished_at: float
    container_id: str

    def as_object(self) -> Object:
        """Return the API's form."""
        times = {"startedAt": timestamp(self.started_at), "finishedAt": timestamp(self.finished_at)}
        reason = "Completed" if self.exit_code == 0 else "Error"
        ends = {"exitCode": self.exit_code, "reason": reason, "containerID": self.container_id}
        return {"terminated": ends | times}


State = Waiting | Running | Terminated


@dataclass
class Record:
    """One container's present; changed by its runner, read by the status."""

    name: str
    image: str
    initial: bool
    """An init container, native sidecars among them."""
    sidecar: bool
    state: State = field(default_factory=lambda: Waiting(CREATING))
    last: Terminated | None = None
    restarts: int = 0
    container_id: str = ""
    started: bool = False
    ready: bool = False

    @property
    def finished_well(self) -> bool:
        """Tell whether the last run ended with exit code 0."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def running(self) -> bool:
        """Tell whether a process runs at this moment."""
        return isinstance(self.state, Running)

    def as_object(self) -> Object:
        """Return the container status of the API."""
        runs_once = self.initial and not self.sidecar
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "state": self.state.as_object(),
            "lastState": self.last.as_object() if self.last else {},
            "restartCount": self.restarts,
            "started": self.started,
            "ready": self.finished_well if runs_once else self.ready,
        } | ({"containerID": self.container_id} if self.container_id else {})


def record_of(container: Object, before: dict[str, Any] | None, *, initial: bool) -> Record:
    """Start a record; `before` is the status that an earlier kubelet wrote, whose restarts are counted on."""
    record = Record(
        container["name"], container.get("image", ""), initial, initial and is_sidecar(container), Waiting(INITIALIZING)
    )
    if before and before.get("containerID"):
        record.restarts = int(before.get("restartCount", 0)) + 1
    return record
