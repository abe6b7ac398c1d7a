"""Keeps the PodDisruptionBudget of every InferenceServer that asks for one. Runs on the leader only."""

from __future__ import annotations

from http import HTTPStatus

from tailrace.kube import budget, objects, workload
from tailrace.kube.client import Api, ApiError, Document, PatchType
from tailrace.kube.problems import Problem, Problems
from tailrace.kube.servers import Server
from tailrace.kube.view import View

FINDER = "budget"
RETRY_TAKEN_SECONDS = 60.0


class Budgets:
    """Makes budgets what they should be, one InferenceServer at a time; the garbage collector ends them with it."""

    def __init__(self, api: Api, view: View, problems: Problems) -> None:
        self._api = api
        self._view = view
        self._problems = problems

    async def reconcile(self, key: str) -> float | None:
        """Make the budget of this server what it should be; return when to look again. ApiError: come back."""
        server = self._view.servers().get(key)
        if server is None or objects.deleting(server.document):
            return None
        wanted, live = budget.budget(server.model), self._view.budget(key)
        if wanted is not None:
            return await self._keep(key, server, wanted, live)
        self._problems.report(key, FINDER)
        if live is not None and workload.controlled(live, server.model) and not objects.deleting(live):
            await self._remove(live)
        return None

    async def _keep(self, key: str, server: Server, wanted: Document, seen: Document | None) -> float | None:
        live = seen or await self._created(wanted)
        if not workload.controlled(live, server.model):
            self._problems.report(key, FINDER, name_taken(key))
            return RETRY_TAKEN_SECONDS
        patch = budget.change(live, wanted)
        if patch:
            await self._api.patch(
                objects.BUDGETS, objects.namespace(live), objects.name(live), patch, how=PatchType.JSON
            )
        self._problems.report(key, FINDER)
        return None

    async def _created(self, wanted: Document) -> Document:
        """Create the budget; return it, or the one that is in the way: of this very moment, or without our label."""
        namespace = objects.namespace(wanted)
        try:
            return await self._api.create(objects.BUDGETS, namespace, wanted)
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        return await self._api.get(objects.BUDGETS, namespace, objects.name(wanted))

    async def _remove(self, live: Document) -> None:
        try:
            await self._api.delete(objects.BUDGETS, objects.namespace(live), objects.name(live), uid=objects.uid(live))
        except ApiError as error:
            if not error.gone and not error.stale:
                raise


def name_taken(key: str) -> Problem:
    """Say that somebody else's budget is in the way."""
    return Problem(
        "BudgetNameTaken",
        f"PodDisruptionBudget {key} was made by somebody else and is left alone: delete or rename it, or leave "
        "spec.disruptionBudget out.",
    )
