"""What becomes of a pod that is being created: the drain is put into those that an InferenceServer selects. Pure.

The pod gets what the pods of a template get (``injection``) and what adoption would give it (``membership``), so that
adoption finds nothing to do. Whatever can't be is told as a warning; the pod is let through in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tailrace.api import names
from tailrace.kube import membership, objects, workload
from tailrace.kube.client import Document
from tailrace.kube.injection import DEFAULT_GRACE_SECONDS, GateParams, Weakness, inject, protection
from tailrace.kube.servers import Server
from tailrace.kube.workload import Installation

IN_THE_WAY: Final = frozenset({"HostNetwork", "OwnPreStop"})
"""Weaknesses with which a gate would protect nothing: such a pod stays as it is."""

OF_THE_SERVER: Final = frozenset({"GateDisabled", "RequestsOutliveDrain"})
"""Weaknesses that the InferenceServer says of itself; who creates a pod can't mend them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The merge patch for the pod, empty when it stays as it is, and what to tell who creates it."""

    patch: Document
    warnings: tuple[str, ...] = ()


UNTOUCHED: Final = Verdict({})


def judge(pod: Document, namespace: str, servers: Iterable[Server], installation: Installation) -> Verdict:
    """Return what becomes of a pod that is created in this namespace. ValueError: it is no pod.

    The same pod, changed accordingly, is left as it is: another webhook may make the API server ask again.
    """
    selecting = _selecting(pod, namespace, servers)
    if not selecting or _is_elsewhere(pod, selecting[0]) or _has_a_gate_of_its_own(pod):
        return UNTOUCHED
    params = workload.gate_params(selecting[0].model, installation)
    hindrances = [weakness for weakness in protection(pod, params) if weakness.reason in IN_THE_WAY]
    if hindrances:
        return Verdict({}, tuple(_told(weakness, "gets no drain gate") for weakness in hindrances))
    changed = _injected(pod, params)
    left = [weakness for weakness in protection(changed, params) if weakness.reason not in OF_THE_SERVER]
    return Verdict(_difference(pod, changed), tuple(_told(weakness, "is not fully protected") for weakness in left))


def _selecting(pod: Document, namespace: str, servers: Iterable[Server]) -> list[Server]:
    """Return the InferenceServers that select the pod, the oldest first: it is theirs whose adoption came first."""
    found = [
        server
        for server in servers
        if objects.namespace(server.document) == namespace
        and not objects.deleting(server.document)
        and (selector := server.model.spec.selector) is not None
        and membership.selects(selector, objects.labels(pod))
    ]
    return sorted(found, key=lambda server: (_created(server), objects.name(server.document)))


def _created(server: Server) -> str:
    return str(objects.meta(server.document).get("creationTimestamp", ""))


def _is_elsewhere(pod: Document, server: Server) -> bool:
    return objects.labels(pod).get(names.LABEL_SERVER) not in (None, objects.name(server.document))


def _has_a_gate_of_its_own(pod: Document) -> bool:
    sidecars = (pod.get("spec") or {}).get("initContainers") or ()
    gated = any(container.get("name") == names.GATE_CONTAINER for container in sidecars)
    return gated and membership.ANNOTATION_ADOPTED not in objects.annotations(pod)


def _injected(pod: Document, params: GateParams) -> Document:
    spec = dict(pod.get("spec") or {})
    # The API server has filled the default in already; that somebody asked for just this can't be told from it.
    if spec.get("terminationGracePeriodSeconds") == DEFAULT_GRACE_SECONDS:
        del spec["terminationGracePeriodSeconds"]
    changed = inject({**pod, "spec": spec}, params)
    changed["metadata"]["annotations"][membership.ANNOTATION_ADOPTED] = "true"
    return changed


def _difference(before: Document, after: Document) -> Document:
    """Return the merge patch from one to the other; nothing is taken away, and lists are given whole."""
    patch: dict[str, Any] = {}
    for field, value in after.items():
        known = before.get(field)
        if isinstance(value, dict) and (part := _difference(known if isinstance(known, dict) else {}, value)):
            patch[field] = part
        elif not isinstance(value, dict) and value != known:
            patch[field] = value
    return patch


def _told(weakness: Weakness, what: str) -> str:
    return f"tailrace: this pod {what}: {weakness.message}"
