"""The admission webhook, run by kopf: what the API server asks about every pod that is created.

Like the watches it lives in a thread and loop of its own, apart from theirs: a watch that ends must not take the
webhook along. It reads what the agent knows and writes nothing, to no object and to no webhook configuration; whatever
goes wrong here lets the pod through.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import kopf
from kubernetes.aio import client

from tailrace.kube import admission
from tailrace.kube.admission import UNTOUCHED, Verdict
from tailrace.kube.client import Document
from tailrace.kube.handlers import IDENTITY, connection, kopf_settings, live_again
from tailrace.kube.servers import Server
from tailrace.kube.workload import Installation

log = logging.getLogger(__name__)

CERTIFICATE, KEY = "tls.crt", "tls.key"
"""Names of the files, as a Secret of the type kubernetes.io/tls has them."""

RELOAD_SECONDS = 30.0
"""Between two looks at whether the files have changed; the kubelet brings a new Secret within a minute."""


class Webhook:
    """Answers reviews of pods over HTTPS from ``start`` to ``stop``; ``servers`` is read for each of them."""

    def __init__(
        self,
        load: Callable[[], Awaitable[client.Configuration]],
        servers: Callable[[], Mapping[str, Server]],
        installation: Installation,
        *,
        host: str,
        port: int,
        certificates: Path,
    ) -> None:
        """Take how to read the credentials, and a folder with certificate and key."""
        self._load = load
        self._servers = servers
        self._installation = installation
        self._server = kopf.WebhookServer(
            addr=host,
            port=port,
            certfile=certificates / CERTIFICATE,
            pkeyfile=certificates / KEY,
            file_check_interval=RELOAD_SECONDS,
        )
        self._stop = threading.Event()

    def start(self) -> None:
        """Start answering, for as long as the process lives or until ``stop``."""
        threading.Thread(target=self._run, name="webhook", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; nobody needs to wait for it."""
        self._stop.set()

    def _run(self) -> None:
        live_again(self._live, self._stop, "the admission webhook starts again")

    def _live(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            log.warning("the admission webhook has ended: %s", error)

    async def _serve(self) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kopf.on.mutate("", "v1", "pods", operation="CREATE", id="pods", registry=registry)(self._review)
        settings = kopf_settings()
        settings.admission.server = self._server
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            identity=IDENTITY,
            clusterwide=True,
            stop_flag=self._stop,
        )

    async def _login(self, **_: object) -> kopf.ConnectionInfo:
        return await connection(await self._load())

    async def _review(
        self, body: Mapping[str, Any], namespace: str | None, patch: kopf.Patch, warnings: list[str], **_: object
    ) -> None:
        verdict = self.judge(dict(body), namespace or "")
        patch.update(verdict.patch)
        warnings.extend(verdict.warnings)

    def judge(self, pod: Document, namespace: str) -> Verdict:
        """Return what becomes of the pod; what can't be judged stays as it is, and never raises."""
        try:
            # A copy in one step: the agent's thread changes the original.
            return admission.judge(pod, namespace, dict(self._servers()).values(), self._installation)
        except Exception as error:
            log.exception("pod in %s could not be looked at", namespace)
            return Verdict(UNTOUCHED.patch, (f"tailrace: this pod gets no drain gate: {error}",))
