"""Keeps the Deployment of every InferenceServer with a template. Runs on the leader only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from tailrace.kube import objects, workload
from tailrace.kube.client import Api, ApiError, Document, PatchType
from tailrace.kube.injection import GateParams
from tailrace.kube.problems import Problem, Problems
from tailrace.kube.servers import Server
from tailrace.kube.view import View
from tailrace.kube.workload import Installation

FINDER = "workload"
RETRY_INVALID_SECONDS = 60.0

Shrink = Callable[[str], Awaitable[None]]
"""Called with the server's key before its replica count goes down."""


class Workloads:
    """Makes Deployments what they should be, one InferenceServer at a time."""

    def __init__(
        self, api: Api, view: View, problems: Problems, installation: Installation, before_shrinking: Shrink
    ) -> None:
        self._api = api
        self._view = view
        self._problems = problems
        self._installation = installation
        self._before_shrinking = before_shrinking

    async def reconcile(self, key: str) -> float | None:
        """Make the Deployment of this server what it should be; return when to look again."""
        server = self._view.servers().get(key)
        if server is None or objects.deleting(server.document) or server.model.spec.template is None:
            return None
        try:
            return await self._reconcile(key, server)
        except ApiError as error:
            if not _about_the_template(error):
                raise
            self._problems.report(key, FINDER, invalid_template(error))
        except ValueError as error:
            self._problems.report(key, FINDER, Problem("InvalidTemplate", f"spec.{error}"))
        return RETRY_INVALID_SECONDS

    async def _reconcile(self, key: str, server: Server) -> float | None:
        live = self._view.deployment(key)
        if live is None:
            live = await self._stored(server)
        if live is None:
            await self._create(server)
        elif not workload.controlled(live, server.model):
            self._problems.report(key, FINDER, name_taken(live))
            return RETRY_INVALID_SECONDS
        elif objects.deleting(live):
            return 1.0
        else:
            await self._change(key, server, live)
        self._problems.report(key, FINDER)
        return None

    async def _stored(self, server: Server) -> Document | None:
        """Look for a Deployment that the watch does not show: without our label, or of this very moment."""
        try:
            return await self._api.get(
                objects.DEPLOYMENTS, objects.namespace(server.document), server.model.metadata.name
            )
        except ApiError as error:
            if error.gone:
                return None
            raise

    def _params(self, server: Server) -> GateParams:
        return workload.gate_params(server.model, self._installation)

    async def _create(self, server: Server) -> None:
        body = workload.deployment(server.model, server.document["spec"]["template"], self._params(server))
        namespace = objects.namespace(server.document)
        tried = await self._api.create(objects.DEPLOYMENTS, namespace, body, dry_run=True)
        body["metadata"]["labels"][workload.LABEL_LIVE_HASH] = workload.live_hash(tried["spec"]["template"])
        await self._api.create(objects.DEPLOYMENTS, namespace, body)

    async def _change(self, key: str, server: Server, live: Document) -> None:
        template, params = server.document["spec"]["template"], self._params(server)
        patch = workload.changes(live, server.model, template, params)
        if not patch:
            return
        if workload.template_is_due(live, template, params):
            tried = await self._patch(live, workload.guarded(live, patch), dry_run=True)
            patch = workload.with_live_hash(patch, tried)
        if server.model.spec.replicas < (live["spec"].get("replicas") or 0):
            await self._before_shrinking(key)
        await self._patch(live, workload.guarded(live, patch))

    async def _patch(self, live: Document, patch: list[Document], *, dry_run: bool = False) -> Document:
        namespace, name = objects.namespace(live), objects.name(live)
        return await self._api.patch(objects.DEPLOYMENTS, namespace, name, patch, how=PatchType.JSON, dry_run=dry_run)


def _about_the_template(error: ApiError) -> bool:
    """Tell a refused object from a guard that failed, which names no field."""
    return error.status == HTTPStatus.BAD_REQUEST or (
        error.status == HTTPStatus.UNPROCESSABLE_ENTITY and error.causes != ()
    )


def invalid_template(error: ApiError) -> Problem:
    """Say in the user's own field paths what the API server does not like about the Deployment."""
    causes = "; ".join(f"{path}: {message}" if path else message for path, message in error.causes)
    return Problem("InvalidTemplate", f"The Deployment of spec.template is refused: {causes or error.message}"[:1000])


def name_taken(live: Document) -> Problem:
    """Say whose Deployment is in the way."""
    owner = objects.controller(live)
    whose = f"belongs to {owner['kind']} {owner['name']}" if owner else "was made by somebody else"
    return Problem(
        "NameTaken",
        f"Deployment {objects.key(live)} {whose} and is left alone: delete or rename it, "
        "or give the InferenceServer another name.",
    )
