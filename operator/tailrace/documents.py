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

POLL_SECONDS = 0.25


class BadDocumentsError(ValueError):
    """The file cannot be served; the message has a line for every problem."""


def read_snapshot(path: Path) -> Snapshot:
    """Return what the file asks for; ``BadDocumentsError`` names document, field and fix, and nothing is used."""
    try:
        return parse_snapshot(path, path.read_bytes())
    except OSError as error:
        raise BadDocumentsError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_snapshot(path: Path, content: bytes) -> Snapshot:
    """Return what the content asks for; errors as of ``read_snapshot``, told with the name ``path``."""
    try:
        verdicts = load_documents(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadDocumentsError(f"{path}:{line}: is not UTF-8 text; save it as UTF-8") from error
    problems = [line for verdict in verdicts for line in _problems(path, verdict)]
    if not verdicts:
        problems = [f"{path}: holds no InferenceServer document; add one, with spec.models and spec.endpoints"]
    if problems:
        raise BadDocumentsError("\n".join(problems))
    return _snapshot(verdicts)


def _problems(path: Path, verdict: Verdict) -> list[str]:
    where = f"{path}:{verdict.line}: {verdict.name or 'document without a name'}"
    if verdict.server is not None and verdict.server.spec.endpoints is None:
        return [f"{where}: spec.endpoints: is missing; list fixed addresses there, without a cluster there is no other"]
    return [f"{where}: {problem}" for problem in verdict.problems]


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

    def __init__(self, path: Path, apply: Callable[[Snapshot], None], poll_seconds: float = POLL_SECONDS) -> None:
        self._path = path
        self._apply = apply
        self._poll_seconds = poll_seconds
        self._seen: bytes | None = None
        self._taken: bytes | None = None

    def load(self) -> None:
        """Read and apply the file now; ``BadDocumentsError`` when it cannot be served."""
        self._seen = self._taken = _content(self._path)
        self._apply(_parse(self._path, self._taken))

    async def run(self) -> None:
        """Follow the file until cancelled. Contents are compared, so an editor's rename or a mount's swap is seen.

        A change counts when two readings agree on it: half of a file that is being written is not served.
        """
        while True:
            await asyncio.sleep(self._poll_seconds)
            content = await asyncio.to_thread(_content, self._path)
            if content == self._seen != self._taken:
                await self._take(content)
            self._seen = content

    async def _take(self, content: bytes | None) -> None:
        self._taken = content
        try:
            # In a thread, because reading the YAML of thousands of endpoints takes seconds.
            self._apply(await asyncio.to_thread(_parse, self._path, content))
        except BadDocumentsError as error:
            log.error("not reloaded, the last good version serves on:\n%s", error)  # noqa: TRY400 - no traceback for users
        except Exception:
            log.exception("not reloaded, a mistake of the program: %s", self._path)
        else:
            log.info("reloaded %s", self._path)


def _parse(path: Path, content: bytes | None) -> Snapshot:
    return read_snapshot(path) if content is None else parse_snapshot(path, content)


def _content(path: Path) -> bytes | None:
    """Return what the file holds, None when it cannot be read: ``read_snapshot`` then says why."""
    try:
        return path.read_bytes()
    except OSError:
        return None
