"""How InferenceServers stand to each other: shared pools, and names that two namespaces serve. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tailrace.core.model import ServerSpec
from tailrace.kube.problems import Problem

POOL_SETTINGS_IGNORED = "PoolSettingsIgnored"
AMBIGUOUS_MODEL = "AmbiguousModel"


def standing(server: ServerSpec, others: Iterable[ServerSpec]) -> dict[str, Problem]:
    """Return the conditions, by type, that this server has because of the others; ``others`` may contain it."""
    rest = [other for other in others if other.key != server.key]
    found: dict[str, Problem] = {}
    oldest = min([server, *_pool(server, rest)], key=lambda each: (each.created_at, each.key))
    if oldest.pool != server.pool:
        found[POOL_SETTINGS_IGNORED] = Problem("OlderServerDecides", _ignored(oldest))
    elsewhere = _elsewhere(server, rest)
    if elsewhere:
        found[AMBIGUOUS_MODEL] = Problem("ServedInTwoNamespaces", _ambiguous(elsewhere))
    return found


def _pool(server: ServerSpec, rest: Iterable[ServerSpec]) -> list[ServerSpec]:
    models = {model.name for model in server.models}
    return [
        other
        for other in rest
        if other.namespace == server.namespace and any(model.name in models for model in other.models)
    ]


def _elsewhere(server: ServerSpec, rest: Iterable[ServerSpec]) -> dict[str, str]:
    mine = names_of(server)
    return {
        name: other.key
        for other in rest
        if other.namespace != server.namespace
        for name in sorted(mine & names_of(other))
    }


def names_of(server: ServerSpec) -> frozenset[str]:
    """Return every name that requests may use for a model of this server."""
    return frozenset(name for model in server.models for name in (model.name, *model.aliases, *model.adapters))


def _ignored(oldest: ServerSpec) -> str:
    return (
        f"The pool takes spec.loadBalancing from its oldest server, {oldest.key}; that of this one differs and is not "
        "used: make them equal, or change it there."
    )


def _ambiguous(elsewhere: Mapping[str, str]) -> str:
    told = ", ".join(f"{name} (by {key})" for name, key in sorted(elsewhere.items())[:5])
    return (
        f"Also served in another namespace: {told}. A request for such a name is refused unless its header "
        "x-tailrace-namespace says which one is meant."
    )
