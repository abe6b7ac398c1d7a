"""InferenceServers from a file: what `tailrace serve` watches instead of a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from tailrace.api.verdict import Verdict, load_documents
from tailrace.core.model import EndpointSpec, ServerSpec, Snapshot
from tailrace.kube.serverstate import fixed_endpoints, server_spec

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class BadDocumentsError(ValueError):
    """The file cannot be served; the message has a line for every problem."""


def read_snapshot(path: Path) -> Snapshot:
    """Return what the file asks for; ``BadDocumentsError`` names document, field and fix, and nothing is used."""
    try:
        verdicts = load_documents(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadDocumentsError(f"{path}: cannot be read: {error}") from error
    problems = [line for verdict in verdicts for line in _problems(path, verdict)]
    if not verdicts:
        problems = [f"{path}: holds no InferenceServer document"]
    if problems:
        raise BadDocumentsError("\n".join(problems))
    return _snapshot(verdicts)


def _problems(path: Path, verdict: Verdict) -> list[str]:
    where = f"{path}:{verdict.line}: {verdict.name or 'document'}"
    if verdict.server is not None and verdict.server.spec.endpoints is None:
        return [f"{where}: spec.endpoints: is missing; without a cluster only fixed endpoints can be served"]
    return [f"{where}: {problem.path}: {problem.message}" for problem in verdict.problems]


def _snapshot(verdicts: list[Verdict]) -> Snapshot:
    servers: list[ServerSpec] = []
    endpoints: list[EndpointSpec] = []
    for verdict in verdicts:
        if verdict.server is not None:
            servers.append(server_spec(verdict.server))
            endpoints += fixed_endpoints(verdict.server)
    return Snapshot(tuple(servers), tuple(endpoints))


class DocumentWatch:
    """Reads the file again when it changes. A bad new version is said and the last good one serves on."""

    def __init__(self, path: Path, apply: Callable[[Snapshot], None]) -> None:
        self._path = path
        self._apply = apply
        self._seen: bytes | None = None

    def load(self) -> None:
        """Read and apply the file now; ``BadDocumentsError`` when it cannot be served."""
        self._seen = self._content()
        self._apply(read_snapshot(self._path))

    async def run(self) -> None:
        """Follow the file until cancelled. Contents are compared, so an editor's rename or a mount's swap is seen."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            content = self._content()
            if content != self._seen:
                self._reload(content)

    def _reload(self, content: bytes | None) -> None:
        self._seen = content
        try:
            self._apply(read_snapshot(self._path))
        except BadDocumentsError as error:
            log.error("not reloaded, the last good version serves on:\n%s", error)  # noqa: TRY400 - no traceback for users
        else:
            log.info("reloaded %s", self._path)

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None
