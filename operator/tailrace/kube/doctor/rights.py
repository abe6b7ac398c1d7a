"""The rights that the operator's service account must have, and what fails without each. Pure.

The table is the one of ``manifests/base/rbac.yaml``; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tailrace.api import names
from tailrace.kube.client import Document


class Where(Enum):
    """Where a right must hold: no namespace can grant it; in every namespace that is served; in the operator's own."""

    CLUSTER = "cluster"
    SERVED = "served"
    HOME = "home"


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on a kind, or on a part of it (``kind/part``). ``without``: what fails."""

    where: Where
    group: str
    resource: str
    verbs: tuple[str, ...]
    without: str


_READ: Final = ("get", "list", "watch")
_NO_AGREEMENT: Final = (
    "no replica can register or lead, so none becomes ready and nothing is written: no Deployment, no status, no "
    "released finalizer"
)

RULES: Final = (
    Rule(Where.SERVED, names.GROUP, names.PLURAL, _READ, "no model is known and every request is answered with 404"),
    Rule(Where.SERVED, names.GROUP, f"{names.PLURAL}/status", ("patch",), "status and conditions stay as they were"),
    Rule(
        Where.SERVED,
        names.GROUP,
        f"{names.PLURAL}/finalizers",
        ("update",),
        "Deployments are refused where the API server protects owner references",
    ),
    Rule(
        Where.SERVED,
        "",
        "pods",
        (*_READ, "patch"),
        "endpoints are not seen, or pods that are deleted never lose their finalizer and stay Terminating",
    ),
    Rule(
        Where.CLUSTER,
        "",
        "nodes",
        ("list", "watch"),
        "GPU memory is unknown, so long prompts are refused, and a lost node holds its pods",
    ),
    Rule(
        Where.SERVED,
        "apps",
        "deployments",
        (*_READ, "create", "patch"),
        "no pods are made or changed for an InferenceServer with spec.template",
    ),
    Rule(
        Where.SERVED,
        "policy",
        "poddisruptionbudgets",
        (*_READ, "create", "patch", "delete"),
        "no spec.disruptionBudget is carried out, and node drains take as many pods as they like",
    ),
    Rule(Where.SERVED, "apps", "replicasets", ("list", "watch"), "the reason of a drain is not known"),
    Rule(Where.SERVED, "events.k8s.io", "events", ("create",), "no Event tells how a drain ended"),
    Rule(
        Where.CLUSTER,
        "authentication.k8s.io",
        "tokenreviews",
        ("create",),
        "gates and people are refused on the admin port",
    ),
    Rule(
        Where.CLUSTER,
        "authorization.k8s.io",
        "subjectaccessreviews",
        ("create",),
        "people are refused on the admin port",
    ),
    Rule(Where.HOME, "coordination.k8s.io", "leases", ("get", "list", "create", "update", "delete"), _NO_AGREEMENT),
    Rule(Where.HOME, "", "pods", ("get",), "replicas that are gone are not told from those that are paused"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """May the account do this? ``namespace`` empty: everywhere."""

    rule: Rule
    verb: str
    namespace: str


def questions(home: str, served: Iterable[str]) -> list[Question]:
    """Return what to ask for an installation in the namespace ``home`` that serves these namespaces (none: all)."""
    places = {Where.CLUSTER: ("",), Where.HOME: (home,), Where.SERVED: tuple(served) or ("",)}
    return [
        Question(rule, verb, namespace) for rule in RULES for verb in rule.verbs for namespace in places[rule.where]
    ]


def review(question: Question, account: str) -> Document:
    """Return the SubjectAccessReview that asks the question about a service account (``namespace/name``)."""
    namespace, _, name = account.partition("/")
    resource, _, part = question.rule.resource.partition("/")
    asked = {"group": question.rule.group, "resource": resource, "verb": question.verb}
    more = {"subresource": part, "namespace": question.namespace}
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{name}",
            "groups": groups,
            "resourceAttributes": asked | {field: text for field, text in more.items() if text},
        },
    }
