"""Takes the finalizer off pods whose drain is over, and says so. Runs on the leader only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tailrace.core.model import DrainOutcome, Release
from tailrace.kube import finalizers, history, objects
from tailrace.kube.client import Api, ApiError, Document
from tailrace.kube.events import Events
from tailrace.kube.history import History
from tailrace.kube.view import View


class Releases:
    """Remembers what the parent wants released; ``work`` carries one of them out."""

    def __init__(self, api: Api, view: View, events: Events, drains: History, recorded: Callable[[str], None]) -> None:
        self._api = api
        self._view = view
        self._events = events
        self._drains = drains
        self._recorded = recorded
        self._wanted: dict[str, Release] = {}
        self._done: set[str] = set()
        self._unsure: set[str] = set()

    def want(self, releases: Iterable[Release]) -> list[str]:
        """Replace what is wanted; return the uids that still have to be released."""
        self._wanted = {release.uid: release for release in releases}
        self._done &= self._wanted.keys()
        self._unsure &= self._wanted.keys()
        return self.open()

    def open(self) -> list[str]:
        """Return the uids that still have to be released."""
        return [uid for uid in self._wanted if uid not in self._done]

    async def work(self, uid: str) -> float | None:
        """Release one pod. A pod that lives on (an un-drain is possible) keeps its finalizer until it is deleted."""
        release, pod = self._wanted.get(uid), self._view.pod(uid)
        if release is None or uid in self._done or pod is None or not leaving(pod):
            return None
        mine = await self._take_off(uid, pod)
        self._done.add(uid)
        if mine:
            self._record(release, pod)
        return None

    async def _take_off(self, uid: str, pod: Document) -> bool:
        """Return whether this one took the finalizer off: a drain is told once, by whichever replica ended it."""
        try:
            return await finalizers.take_off(self._api, pod) or uid in self._unsure
        except ApiError as error:
            if error.unsure:
                self._unsure.add(uid)
            raise

    def _record(self, release: Release, pod: Document) -> None:
        key = objects.server_key(pod) or ""
        reason, message = history.sentence(release)
        warning = release.outcome is DrainOutcome.DEADLINE or release.lost > 0
        self._events.say(pod, "Pod", reason, message, warning=warning)
        server = self._view.servers().get(key)
        if server is not None:
            self._drains.add(key, history.entry(release, objects.name(pod)))
            text = f"{objects.name(pod)}: {message}"
            self._events.say(server.document, "InferenceServer", reason, text, warning=warning)
        self._recorded(key)


def leaving(pod: Document) -> bool:
    """Whether the pod never serves again: its deletion has begun, or its phase is terminal."""
    return objects.deleting(pod) or (pod.get("status") or {}).get("phase") in objects.TERMINAL_PHASES
