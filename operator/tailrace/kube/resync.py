"""Full lists: the only thing that says what vanished unseen. Reads; decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document, Listing, Resource
from tailrace.kube.handlers import LABELLED
from tailrace.kube.view import KINDS

log = logging.getLogger(__name__)

Lists = list[tuple[Resource, str | None, Listing]]
Keep = Callable[[Resource, Document], Document]

SPARABLE = {
    objects.NODES: "GPU memory and lost nodes are not known",
    objects.BUDGETS: "no spec.disruptionBudget is carried out",
}
"""Kinds that an installation may not be allowed to list, and what it lacks then."""


async def list_everything(api: Api, namespaces: Sequence[str], keep: Keep) -> Lists:
    """Return a whole list of every kind, of these namespaces (none: all). ApiError when a single one fails.

    ``keep`` says what is left of an object of a kind.
    Nodes may be forbidden to an installation that serves single namespaces, and budgets to one whose rights are older
    than its image: then nothing is known of them.
    """
    lists: Lists = []
    for kind in KINDS:
        for namespace in _scopes(kind, namespaces):
            listing = await _list(api, kind, namespace, partial(keep, kind))
            if listing is not None:
                lists.append((kind, namespace, listing))
    return lists


def _scopes(kind: Resource, namespaces: Sequence[str]) -> Sequence[str | None]:
    return namespaces if kind.namespaced and namespaces else (None,)


async def _list(
    api: Api, kind: Resource, namespace: str | None, keep: Callable[[Document], Document]
) -> Listing | None:
    try:
        labels = names.LABEL_SERVER if kind in LABELLED else ""
        return await api.list_all(kind, namespace, labels=labels, trim=keep)
    except ApiError as error:
        if kind in SPARABLE and error.status == HTTPStatus.FORBIDDEN:
            log.info("%s can't be listed, so %s: %s", kind.plural, SPARABLE[kind], error.message)
            return None
        if kind is objects.SERVERS and error.gone:
            raise ApiError(error.status, "NoCRD", f"{names.CRD_NAME} is not installed: apply the CRD") from error
        raise
