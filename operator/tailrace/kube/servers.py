"""InferenceServers as stored, and as understood. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from pydantic import ValidationError

from tailrace.api.inferenceserver import InferenceServer
from tailrace.api.stored import read_stored
from tailrace.core.model import ServerSpec
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.podstate import Owner, owner_of
from tailrace.kube.serverstate import server_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """An InferenceServer: as stored, and as understood (``model``). ``error`` says what was not understood.

    ``ignored`` are the paths of fields that only a newer version knows; they count as left out.
    """

    document: Document
    model: InferenceServer
    owner: Owner
    spec: ServerSpec
    error: str = ""
    ignored: tuple[str, ...] = ()


def understand(document: Document, before: Server | None) -> Server | None:
    """Read an InferenceServer; what cannot be read leaves what was understood of the same object before."""
    meta = objects.meta(document)
    known = ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp")
    body = {part: document.get(part) for part in ("apiVersion", "kind", "spec")}
    body["metadata"] = {field: meta[field] for field in known if field in meta}
    try:
        model, ignored = read_stored(body)
    except ValidationError as error:
        log.warning("InferenceServer %s is not understood: %s", objects.key(document), error)
        same = before is not None and objects.uid(before.document) == objects.uid(document)
        return replace(before, document=document, error=str(error)) if before and same else None
    return Server(document, model, owner_of(model), server_spec(model), ignored=ignored)
