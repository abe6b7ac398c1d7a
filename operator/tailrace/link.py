"""The pipe between the data plane and its Kubernetes child: messages, and how they travel.

Both ends are the same program of the same version, so values cross as length-prefixed pickles. Observations go up,
what should be true comes down; every message is a value and may be sent twice without harm.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from dataclasses import dataclass

from tailrace import collector
from tailrace.core.model import EndpointState, Observation, Release

_LENGTH = struct.Struct(">I")
MAX_MESSAGE_BYTES = 256 * 1024 * 1024


class GarbledError(ValueError):
    """What came over the pipe is no message; nothing after it can be read either."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Child to parent: news, oldest first; a bounded batch."""

    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class ChildHealth:
    """Child to parent, about once a second: how fresh its view is.

    Times on the machine's monotonic clock, which parent and child share and nobody sets; 0.0 for never. ``zone`` is
    that of this replica's node, empty while it is not known.
    """

    last_event_at: float
    last_list_at: float
    leader: bool
    holder: str
    api_error: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """Parent to child: who is the bearer of this token? ``audience`` None asks for the API server's own.

    ``verb`` and ``resource`` (of the group inference.tailrace.dev, in ``namespace``) are checked by a
    SubjectAccessReview when given.
    """

    ticket: int
    token: str
    audience: str | None = None
    verb: str | None = None
    resource: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Child to parent: the answer. ``error`` says that the API server could not be asked; then nothing is known."""

    ticket: int
    authenticated: bool
    allowed: bool
    user: str = ""
    pod_uid: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """How one endpoint stands, for the status of its InferenceServer."""

    uid: str
    server: str
    state: EndpointState
    in_flight: int
    gate_seen: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """Parent to child: what should be true. Each message replaces the one before it.

    ``releases``: drains that are over; their finalizers should be gone. ``endpoints`` None: they stand as last said.
    ``members_wanted``: a list of members is needed that is read after this was first said. ``grades``: the worst grade
    of the pools of a server, by its key, where there is one.
    """

    releases: tuple[Release, ...]
    endpoints: tuple[EndpointReport, ...] | None
    members_wanted: int = 0
    grades: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Cordon:
    """Parent to child: mark (or unmark) a pod as manually draining, durably, in its annotations."""

    uid: str
    draining: bool
    generation: int


@dataclass(frozen=True, slots=True)
class Cordoned:
    """Child to parent: this word on a pod is written, or overtaken by a newer one, or the pod is gone."""

    cordon: Cordon


@dataclass(frozen=True, slots=True)
class GateMark:
    """Parent to child: mark a pod as draining by the call of its gate, for this incarnation."""

    uid: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Member:
    """A life of a replica: its name for the others, where its admin port is, its pod (empty when it is none).

    ``stopping``: it takes no new requests, and so needs no part of the capacity.
    """

    id: str
    address: str
    pod_uid: str = ""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """Child to parent: the replicas that must agree on drains, and the ids of those whose leaving is on record.

    ``answers`` is the newest ``Desired.members_wanted`` that was known before they were read. When ``live`` lacks this
    replica itself, another life has taken its name.
    """

    answers: int
    live: tuple[Member, ...]
    left: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stopping:
    """Parent to child: this replica takes no new requests; it is still a member."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Parent to child: this replica has ended its last request; take it off the members, and end."""


Message = (
    Observed | ChildHealth | Review | Reviewed | Desired | Cordon | Cordoned | GateMark | Members | Stopping | Leave
)


def encode(message: Message) -> bytes:
    """Return the message as bytes for the pipe."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message, or None when the other end has gone; GarbledError when it is none."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_MESSAGE_BYTES:
            raise GarbledError(f"a message of {length} bytes on the pipe; the limit is {MAX_MESSAGE_BYTES}")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _decode(body)


def _decode(body: bytes) -> Message:
    try:
        with collector.paused():
            message = pickle.loads(body)  # noqa: S301 - both ends are this program
    except Exception as error:  # unpickling raises whatever it likes
        raise GarbledError(f"{len(body)} bytes on the pipe are no message: {error!r}") from error
    if not isinstance(message, Message):
        raise GarbledError(f"a {type(message).__name__} on the pipe is no message")
    return message
