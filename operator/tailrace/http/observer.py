"""What the doors tell whoever counts: a protocol, so that doors and telemetry do not know each other."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Hears of every request at the proxy and routing doors. Called on the event loop; must not block or raise."""

    def started(self, door: str) -> None:
        """Note that a request has come in at ``proxy`` or ``route``; exactly one ``ended`` follows."""
        ...

    def ended(
        self, *, door: str, model: str, code: str, seconds: float, ttft: float | None = None, itl: float | None = None
    ) -> None:
        """Note how a request ended.

        ``model`` is empty when no InferenceServer serves the name; ``code`` is empty when all went well, else the
        error code of our own answer, the status of the engine's, or ``client-gone``. ``ttft`` is the seconds to the
        first byte of the body, ``itl`` the mean seconds between the chunks of a streamed answer.
        """
        ...

    def waited(self, model: str, outcome: str, seconds: float) -> None:
        """Note that a request has waited for a slot, and what came of it.

        ``outcome``: ``picked``, ``expired`` (it waited for as long as it may), ``refused`` or ``client-gone``.
        """
        ...

    def retried(self, reason: str) -> None:
        """Note that an attempt has failed and another one of the same request follows."""
        ...
