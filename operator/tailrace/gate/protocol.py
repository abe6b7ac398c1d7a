"""What the gate says to a router's admin port, and how it reads the answers. Pure."""

import json
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from urllib.parse import quote

POLL_SECONDS = 20
"""How long a router may keep one wait call open before it answers where things stand."""


class Call(Enum):
    """The three calls: HTTP method, path for a pod's uid, JSON body, seconds until the call counts as failed."""

    HELLO = ("POST", "/endpoints/{uid}/gate", {"version": 1}, 5.0)
    DRAIN = ("POST", "/endpoints/{uid}/drain", {"reason": "gate"}, 5.0)
    WAIT = ("GET", f"/wait-for-drain?pod={{uid}}&timeout={POLL_SECONDS}", None, POLL_SECONDS + 10.0)

    def __init__(self, method: str, path: str, body: dict[str, object] | None, patience: float) -> None:
        self.method = method
        self.body = body
        self.patience = patience
        self._path = path

    def path(self, uid: str) -> str:
        """Return the path and query of this call for one pod."""
        return self._path.format(uid=quote(uid, safe=""))


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a router says the pod's drain stands."""

    state: str
    in_flight: int | None
    safe_to_delete: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """A router that could not be asked, or whose answer is of no use, with the reason in words."""

    why: str


_REFUSALS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "refused the pod's token",
    HTTPStatus.FORBIDDEN: "refused the pod's token for this pod",
    HTTPStatus.NOT_FOUND: "does not know this pod",
}


def read_answer(status: int, body: bytes, uid: str) -> Answer | Fault:
    """Read the answer to a drain or wait call. Only a literal `"safe_to_delete": true` about our own uid is one."""
    document = _document(status, body)
    if isinstance(document, Fault):
        return document
    if document.get("uid") != uid:
        return Fault(f"answered about another pod: {document.get('uid')!r}")
    in_flight = document.get("inFlight")
    return Answer(
        state=str(document.get("state", "")),
        in_flight=in_flight if isinstance(in_flight, int) else None,
        safe_to_delete=document.get("safe_to_delete") is True,
    )


def read_hello(status: int, body: bytes) -> bool | Fault:
    """Read the answer to a hello: whether the router knows the pod."""
    document = _document(status, body)
    return document if isinstance(document, Fault) else document.get("known") is True


def next_call(last: Call, word: Answer | Fault) -> Call:
    """Return the call that follows: wait after drain, drain again when a router has lost or cancelled the drain."""
    if isinstance(word, Fault):
        return Call.DRAIN
    draining = word.state.lower() in ("draining", "drained", "gone")
    return Call.WAIT if last is Call.DRAIN or draining else Call.DRAIN


def pause(last: Call, word: Answer | Fault, *, elapsed: float, spacing: float) -> float:
    """Return the seconds to wait before the next call: retries and quick answers come at most every `spacing`."""
    if isinstance(word, Answer) and last is Call.DRAIN:
        return 0.0
    return spacing if isinstance(word, Fault) else max(0.0, spacing - elapsed)


def _document(status: int, body: bytes) -> dict[str, object] | Fault:
    if status != HTTPStatus.OK:
        return Fault(_REFUSALS.get(status, f"answered {status}"))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Fault("answered something that is not JSON")
    return document if isinstance(document, dict) else Fault("answered JSON that is not an object")
