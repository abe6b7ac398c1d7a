"""What happened in one run, as values on one clock (wall time of this machine, seconds). No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

OURS = "tailrace.dev/drain"


@dataclass(frozen=True, slots=True)
class Begun:
    """A client began a request."""

    at: float
    request: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A client saw the end of its request. `endpoint` is `ip:port` as it was told, empty when it never was."""

    at: float
    request: str
    complete: bool
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An engine began to work on a request."""

    at: float
    request: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Left:
    """An engine has ended its work on a request."""

    at: float
    request: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod as the API server told it. `deadline` is when its drain must be over, None while nobody has deleted it."""

    at: float
    uid: str
    name: str
    endpoint: str
    ready: bool
    finalizers: tuple[str, ...] = ()
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class PodGone:
    """A pod's object has vanished."""

    at: float
    uid: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A replica has said that this endpoint drains."""

    at: float
    uid: str


@dataclass(frozen=True, slots=True)
class Unfinalized:
    """The operator has taken these finalizers off a pod; the API server has agreed."""

    at: float
    uid: str
    finalizers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The endpoints of a replica, state by uid, as it told them at one moment."""

    at: float
    states: Mapping[str, str]
    in_flight: int = 0

    @property
    def ready(self) -> frozenset[str]:
        """The uids that get requests."""
        return frozenset(uid for uid, state in self.states.items() if state == "ready")


@dataclass(frozen=True, slots=True)
class Away:
    """From `at` to `until` nobody could write: no operator, or no API server."""

    at: float
    until: float


@dataclass(frozen=True, slots=True)
class PowerLost:
    """Every engine ended at once; none of them could note anything."""

    at: float


Happening = Begun | Ended | Arrived | Left | PodSeen | PodGone | Acknowledged | Unfinalized | Sampled | Away | PowerLost
T = TypeVar("T", Begun, Ended, Arrived, Left, PodSeen, PodGone, Acknowledged, Unfinalized, Sampled, Away, PowerLost)


@dataclass
class History:
    """Everything that happened, in any order; readers get it by time."""

    happenings: list[Happening] = field(default_factory=list)

    def add(self, *happenings: Happening) -> None:
        """Note what happened; any thread may."""
        self.happenings.extend(happenings)

    def of(self, kind: type[T]) -> list[T]:
        """Return what happened of one kind, by time."""
        return sorted((one for one in list(self.happenings) if isinstance(one, kind)), key=lambda one: one.at)

    def pods(self) -> dict[str, list[PodSeen]]:
        """Return what was seen of each pod, by uid."""
        found: dict[str, list[PodSeen]] = {}
        for seen in self.of(PodSeen):
            found.setdefault(seen.uid, []).append(seen)
        return found

    def deadline(self, uid: str) -> float | None:
        """Return the deadline of a pod's drain, the one first seen; None when nobody has deleted it."""
        return next((seen.deadline for seen in self.pods().get(uid, ()) if seen.deadline is not None), None)

    def stays(self) -> list[Stay]:
        """Return every stay of a request at an engine.

        It ends with the engine's note, with the client's end, with the arrival at the next engine, or with all engines,
        whichever is first: an engine that is killed notes nothing.
        """
        powerless = [one.at for one in self.of(PowerLost)]
        left = {(one.request, one.endpoint): one.at for one in self.of(Left)}
        ended = {one.request: one.at for one in self.of(Ended)}
        arrivals: dict[str, list[Arrived]] = {}
        for arrived in self.of(Arrived):
            arrivals.setdefault(arrived.request, []).append(arrived)
        found = []
        for request, places in arrivals.items():
            following = [one.at for one in places[1:]] + [ended.get(request, float("inf"))]
            for here, over in zip(places, following, strict=True):
                ends = [over, *(at for at in powerless if at > here.at)]
                until = min(*ends, left.get((request, here.endpoint), float("inf")))
                found.append(Stay(request, here.endpoint, here.at, until))
        return found

    def holder(self, endpoint: str, at: float) -> str | None:
        """Return the uid of the pod that had this address then: addresses are reused."""
        first: dict[str, float] = {}
        for seen in self.of(PodSeen):
            if seen.endpoint == endpoint and seen.at <= at:
                first.setdefault(seen.uid, seen.at)
        return max(first, key=first.__getitem__, default=None)


@dataclass(frozen=True, slots=True)
class Stay:
    """A request at an engine."""

    request: str
    endpoint: str
    since: float
    until: float
