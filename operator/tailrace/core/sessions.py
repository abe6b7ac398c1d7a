"""Which endpoint each session is at."""

from __future__ import annotations

from collections import OrderedDict

from tailrace.core.endpoint import Endpoint
from tailrace.core.meter import Notes, Work
from tailrace.core.model import EndpointState, Request

MOST = 100_000
"""How many sessions of a pool are remembered; then the one unused for longest goes."""


class Sessions(Notes):
    """Session -> endpoint, forgotten ``ttl`` seconds after its last request, or with its endpoint. At most ``most``."""

    def __init__(self, ttl: float, most: int = MOST) -> None:
        super().__init__()
        self._ttl = ttl
        self._most = most
        self._at: OrderedDict[str, tuple[Endpoint, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._at)

    def endpoint(self, session: str, now: float) -> Endpoint | None:
        """Return where the session is, None when it is nowhere."""
        found = self._at.get(session)
        return None if found is None or now >= found[1] else found[0]

    def home(self, request: Request, now: float) -> Endpoint | None:
        """Return where the request's session is, None when it is nowhere, or the request was there already."""
        if request.traits is None or not request.traits.session:
            return None
        home = self.endpoint(request.traits.session, now)
        ready = home is not None and home.state is EndpointState.READY and home.uid not in request.avoid
        return home if ready else None

    def open(self, endpoint: Endpoint, request: Request, now: float) -> Work:
        """Book an attempt. Its session is at the endpoint from now on, unless that only stands in for a full one."""
        if request.traits is not None and request.traits.session:
            self._note(request.traits.session, self.home(request, now) or endpoint, now)
        return super().open(endpoint, request, now)

    def forget(self, endpoint: Endpoint) -> None:
        """Let go of the sessions there. Looks at all: for an endpoint that is gone."""
        for session in [name for name, (at, _) in self._at.items() if at is endpoint]:
            del self._at[session]

    def _note(self, session: str, endpoint: Endpoint, now: float) -> None:
        self._at[session] = (endpoint, now + self._ttl)
        self._at.move_to_end(session)
        while len(self._at) > self._most or next(iter(self._at.values()))[1] <= now:
            self._at.popitem(last=False)
