"""What the command line does in a cluster by itself: one connection, one job, an answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.api import names
from tailrace.kube import finalizers, objects
from tailrace.kube.client import CALL_SECONDS, Api, ApiError, Document, Listing, load
from tailrace.kube.doctor import definition
from tailrace.kube.doctor.reading import read
from tailrace.kube.doctor.seen import Look, Seen
from tailrace.kube.rows import row

REACH_SECONDS = 3.0
"""How long the API server may take to say its version: a person waits, and nothing hangs on the answer."""


class UnreachableError(Exception):
    """The cluster could not be asked, or refused; the message says which API server, and why."""


class MissingDefinitionError(UnreachableError):
    """The cluster does not know InferenceServers; the message says how to teach it."""


@dataclass(slots=True)
class Released:
    """Pods (``namespace/name``) that no longer hold our finalizer, and those that still do with the reason."""

    released: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Chores:
    """Jobs for a person with a kubeconfig; None means as kubectl finds it, or the pod's own service account."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        self._kubeconfig = str(kubeconfig) if kubeconfig else _usual_kubeconfig()

    async def release_finalizers(self, namespaces: tuple[str, ...], *, terminating: bool, dry_run: bool) -> Released:
        """Take our finalizer off every pod that holds it, or only off those being deleted."""
        report = Released()
        async with self._api(CALL_SECONDS) as api:
            for pod in await self._pods(api, namespaces):
                if names.FINALIZER in objects.finalizers(pod) and (objects.deleting(pod) or not terminating):
                    await _release(api, pod, report, dry_run=dry_run)
        return report

    async def _pods(self, api: Api, namespaces: tuple[str, ...]) -> list[Document]:
        where: tuple[str | None, ...] = namespaces or (None,)
        return [pod for one in where for pod in (await api.list_all(objects.PODS, one)).items]

    async def server_rows(self, namespace: str | None) -> list[dict[str, Any]]:
        """Return one row of figures an InferenceServer, from its status; MissingDefinitionError without the CRD."""
        async with self._api() as api:
            listing = await _servers(api, namespace)
        return [row(document) for document in listing.items]

    async def see(self, look: Look) -> Seen:
        """Return what there is to examine."""
        async with self._api() as api:
            return await read(api, look, time.time())

    @asynccontextmanager
    async def _api(self, within: float | None = None) -> AsyncIterator[Api]:
        """Give the way to the API server; UnreachableError when it says nothing in so many seconds (REACH_SECONDS)."""
        try:
            api = Api(await load(self._kubeconfig))
        except Exception as error:  # the client library raises whatever the file makes it raise
            where = self._kubeconfig or "no kubeconfig is named or found, and this is no pod"
            raise UnreachableError(f"no usable credentials ({where}): {error}") from error
        try:
            await _reach(api, REACH_SECONDS if within is None else within)
            yield api
        except ApiError as error:
            raise UnreachableError(_in_words(api, error)) from error
        finally:
            await api.close()


async def _reach(api: Api, within: float) -> None:
    """Return once the API server has answered anything; a job's own calls may take much longer than this one."""
    try:
        async with asyncio.timeout(within):
            await api.version()
    except TimeoutError as error:
        raise UnreachableError(f"the API server {api.server} gives no answer within {within:g} s") from error
    except ApiError as error:
        if error.status == 0:
            raise


def _in_words(api: Api, error: ApiError) -> str:
    """Return what the API server said, or why it said nothing, in one line."""
    if error.status:
        return " ".join(str(error).split())
    return f"the API server {api.server} can't be asked: {str(error.__cause__ or '') or error.message}"


async def _servers(api: Api, namespace: str | None) -> Listing:
    try:
        return await api.list_all(objects.SERVERS, namespace)
    except ApiError as error:
        if not error.gone:
            raise
        raise MissingDefinitionError(
            f"the definition {names.CRD_NAME} is not installed; apply it: {definition.APPLY}"
        ) from error


async def _release(api: Api, pod: Document, report: Released, *, dry_run: bool) -> None:
    name = objects.key(pod)
    try:
        if not dry_run:
            await finalizers.take_off(api, pod)
    except ApiError as error:
        report.failed[name] = str(error)
    else:
        report.released.append(name)


def _usual_kubeconfig() -> str | None:
    """Return the file, or the files as KUBECONFIG lists them, that kubectl would read; None when there is none."""
    listed = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return listed if any(Path(one).exists() for one in listed.split(os.pathsep) if one) else None
