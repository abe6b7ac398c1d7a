"""The last drains of every InferenceServer, as its status tells them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tailrace.api.inferenceserver import MAX_DRAINS
from tailrace.core.model import DrainOutcome, Release
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.words import counted


def entry(release: Release, pod: str) -> Document:
    """Return the drain as the status tells it."""
    return {
        "pod": pod,
        "startedAt": objects.timestamp(release.started_at),
        "inFlightAtStart": release.in_flight_at_start,
        "finished": release.finished,
        "lost": release.lost,
        "seconds": round(max(0.0, release.ended_at - release.started_at), 1),
        "reason": release.reason.value,
    }


def sentence(release: Release) -> tuple[str, str]:
    """Return reason and message of the Event about a drain that is over."""
    seconds = max(0.0, release.ended_at - release.started_at)
    figures = (
        f"{counted(release.in_flight_at_start, 'request')} in flight at the start, {release.finished} finished, "
        f"{release.lost} lost, {seconds:.1f} s ({release.reason.value})"
    )
    if release.outcome is DrainOutcome.DEADLINE:
        return "DrainDeadlineExceeded", f"The drain deadline has passed: {figures}"
    return "Drained", f"Drained: {figures}"


class History:
    """The newest drains by server, newest first, never more than the status may hold."""

    def __init__(self) -> None:
        self._drains: dict[str, list[Document]] = {}

    def add(self, key: str, drain: Document) -> None:
        """Add a drain; one that is there already is not added twice."""
        self._drains[key] = merged([drain], self._drains.get(key, ()))

    def of(self, key: str, stored: Iterable[Document] = ()) -> list[Document]:
        """Return the drains of a server, together with those its status already tells."""
        return merged(self._drains.get(key, ()), stored)

    def forget(self, key: str) -> None:
        """Forget a server that is gone."""
        self._drains.pop(key, None)


def merged(newer: Iterable[Document], older: Iterable[Document]) -> list[Document]:
    """Return both without repetition, the latest begin first, as many as the status may hold."""
    drains = {(drain.get("pod"), drain.get("startedAt")): drain for drain in [*older, *newer]}
    latest_first = sorted(drains.values(), key=lambda drain: str(drain.get("startedAt")), reverse=True)
    return latest_first[:MAX_DRAINS]
