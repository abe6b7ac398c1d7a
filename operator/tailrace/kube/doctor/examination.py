"""The table of checks, and what comes of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tailrace.kube.doctor import budgets, definition, installation, permissions, pods, servers, webhook
from tailrace.kube.doctor.findings import Finding, Findings, Severity
from tailrace.kube.doctor.routers import Router, router
from tailrace.kube.doctor.seen import Part, Seen, account_of, webhook_secret


@dataclass(frozen=True, slots=True)
class Check:
    """A check and what it reads; it is left out when a part of that is forbidden, and that is told."""

    needs: frozenset[Part]
    look: Callable[[Seen], Findings]


def _account(seen: Seen) -> Findings:
    return installation.account(seen, account_of(seen.look, seen.deployment))


def _permissions(seen: Seen) -> Findings:
    return permissions.permissions(seen, account_of(seen.look, seen.deployment))


def _row(look: Callable[[Seen], Findings], *needs: Part) -> Check:
    return Check(frozenset(needs), look)


CHECKS: Final = (
    _row(installation.api_server),
    _row(definition.definition, Part.CRD),
    _row(_account, Part.ACCOUNTS),
    _row(_permissions, Part.REVIEWS),
    _row(installation.deployment, Part.DEPLOYMENT),
    _row(installation.services, Part.SERVICES),
    _row(installation.admin_endpoints, Part.SERVICES, Part.SLICES),
    _row(installation.gate_routers, Part.DEPLOYMENT, Part.SERVICES),
    _row(installation.lease, Part.LEASE),
    _row(webhook.registration, Part.DEPLOYMENT, Part.SERVICES, Part.SLICES, Part.WEBHOOKS),
    _row(webhook.certificate, Part.DEPLOYMENT, Part.WEBHOOKS, Part.SECRETS),
    _row(servers.conditions, Part.SERVERS),
    _row(servers.ambiguous, Part.SERVERS),
    _row(servers.model, Part.SERVERS),
    _row(servers.full, Part.SERVERS),
    _row(budgets.budgets, Part.SERVERS, Part.PODS, Part.BUDGETS),
    _row(pods.silent_gates, Part.SERVERS, Part.PODS),
    _row(pods.unmarked, Part.SERVERS, Part.PODS),
    _row(pods.overdue, Part.PODS),
    _row(pods.ownerless, Part.SERVERS, Part.PODS),
    _row(pods.unknown_memory, Part.SERVERS, Part.PODS, Part.NODES),
)


def examine(seen: Seen, routers: Sequence[Router] = ()) -> list[Finding]:
    """Return all findings, in the order in which one would look."""
    found = [finding for check in CHECKS if not check.needs & seen.denied.keys() for finding in check.look(seen)]
    if not {Part.SERVERS, Part.PODS} & seen.denied.keys():
        found += [finding for each in routers for finding in router(each, seen)]
    return found + [_unread(seen, part, why) for part, why in seen.denied.items()]


def _unread(seen: Seen, part: Part, why: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        check="unread",
        about=part.value,
        message=f"You may not read {part.value}, so what depends on them was not checked: {why}.",
        advice="Run it as somebody who may, or only where you may (--only).",
        commands=(f"kubectl auth can-i {_asked(seen, part)}",),
        anchor="not-allowed-to-look",
    )


def _asked(seen: Seen, part: Part) -> str:
    if part is Part.SECRETS:  # one is read, and nobody should be given more for it
        return f"get secrets/{webhook_secret(seen.deployment)} -n {seen.look.namespace}"
    return f"{'create' if part is Part.REVIEWS else 'list'} {part.value} -A"
