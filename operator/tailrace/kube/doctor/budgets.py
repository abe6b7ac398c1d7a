"""Do other PodDisruptionBudgets stand beside ours? Pure."""

from __future__ import annotations

from pydantic import ValidationError

from tailrace.api.spec import Selector
from tailrace.kube import membership, objects
from tailrace.kube.client import Document
from tailrace.kube.doctor.findings import Finding, Findings, Severity
from tailrace.kube.doctor.seen import Seen


def budgets(seen: Seen) -> Findings:
    """Yield the InferenceServers with a disruptionBudget whose pods another budget selects, too."""
    for server in seen.servers:
        if not (server.get("spec") or {}).get("disruptionBudget"):
            continue
        others = [each for each in seen.budgets if _is_other(each, server) and _selects_pods(each, server, seen)]
        if others:
            yield _two(server, others)


def _is_other(budget: Document, server: Document) -> bool:
    owner = objects.controller(budget) or {}
    same_place = objects.namespace(budget) == objects.namespace(server)
    return same_place and owner.get("uid") != objects.uid(server)


def _selects_pods(budget: Document, server: Document, seen: Seen) -> bool:
    """Whether it selects a pod of the server: none selects nothing, an empty one every pod of the namespace."""
    asked = (budget.get("spec") or {}).get("selector")
    if asked is None:
        return False
    try:
        selector = Selector.model_validate(asked)
    except ValidationError:  # larger than ours may be, say: the rest of the examination goes on
        return False
    return any(membership.selects(selector, objects.labels(pod)) for pod in seen.pods_of(objects.key(server)))


def _two(server: Document, others: list[Document]) -> Finding:
    names = ", ".join(objects.name(other) for other in others)
    where = f"kubectl -n {objects.namespace(server)}"
    return Finding(
        severity=Severity.WARNING,
        check="budgets",
        about=objects.key(server),
        message=f"Pods of InferenceServer {objects.key(server)} have the PodDisruptionBudget of spec.disruptionBudget "
        f"and another one ({names}): Kubernetes evicts no pod that has two, so `kubectl drain` fails there.",
        advice="Delete the other one, or leave spec.disruptionBudget out.",
        commands=(f"{where} delete poddisruptionbudget {objects.name(others[0])}",),
        anchor="two-disruption-budgets",
    )
