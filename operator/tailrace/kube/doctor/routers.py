"""What one router says of itself, against what the cluster says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tailrace.kube import objects, podstate
from tailrace.kube.client import Document
from tailrace.kube.doctor.findings import Finding, Findings, Severity, well
from tailrace.kube.doctor.seen import Seen

SILENCE_SECONDS: Final = 90.0
"""Three resyncs at their default."""
STARTING: Final = "starting"

_FIGURE: Final = re.compile(r"^(tailrace_[a-z_]+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Router:
    """What a router's admin port answered: ``/readyz?verbose`` and ``/livez?verbose``, ``/metrics``, ``/endpoints``.

    ``error`` says why it answered nothing.
    """

    url: str
    health: str = ""
    metrics: str = ""
    endpoints: Sequence[Mapping[str, Any]] = ()
    error: str = ""


def router(told: Router, seen: Seen) -> Findings:
    """Yield what is wrong with a router, or that nothing is."""
    if told.error:
        yield _silent(told, seen)
        return
    found = [*_health(told), *_hearing(told), *_unknown_pods(told, seen), *_ghosts(told, seen)]
    yield from found or [well("router", told.url, f"Router {told.url} is ready: {_standing(told)}")]


def _silent(told: Router, seen: Seen) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        check="router",
        about=told.url,
        message=f"Router {told.url} can't be asked: {told.error}.",
        advice="Name its admin port (9090); from outside the cluster forward it first. Where reads are closed "
        "(TAILRACE_OPEN_READS=false) give --token.",
        commands=(f"kubectl -n {seen.look.namespace} port-forward deployment/{seen.look.name} 9090",),
        anchor="router-unreachable",
    )


def figures(text: str) -> dict[str, float]:
    """Return the metrics without labels."""
    return {name: float(value) for name, value in _FIGURE.findall(text)}


def _standing(told: Router) -> str:
    leads = {1.0: "it leads", 0.0: "it does not lead"}.get(figures(told.metrics).get("tailrace_leader", -1.0))
    in_flight = sum(int(endpoint.get("inFlight") or 0) for endpoint in told.endpoints)
    said = f"{leads}, " if leads else ""
    return f"{said}{len(told.endpoints)} endpoints, {in_flight} requests in flight."


def _health(told: Router) -> Findings:
    for line in told.health.splitlines():
        name, _, message = line[3:].partition(": ")
        if line.startswith("[-]"):
            yield _finding(told, Severity.ERROR, f"is not ready: {name}: {message}", "router-not-ready")
        elif line.startswith("[+]kubernetes") and message:
            yield _finding(told, Severity.ERROR, f"has trouble with the API server: {message}", "router-hears-nothing")


def _hearing(told: Router) -> Findings:
    age = figures(told.metrics).get("tailrace_watch_age_seconds", 0.0)
    if age > SILENCE_SECONDS:
        said = f"has heard nothing from the cluster for {age:.0f} s and routes by its last view"
        yield _finding(told, Severity.ERROR, said, "router-hears-nothing")


def _finding(told: Router, severity: Severity, said: str, anchor: str) -> Finding:
    return Finding(
        severity=severity,
        check="router",
        about=told.url,
        message=f"Router {told.url} {said}.",
        advice="Its log tells more; missing rights and a missing definition are told by the other findings.",
        commands=(f"curl -s '{told.url}/readyz?verbose'", f"curl -s {told.url}/endpoints"),
        anchor=anchor,
    )


def _unknown_pods(told: Router, seen: Seen) -> Findings:
    """Pods that are ready in the cluster, and that this router does not send requests to."""
    known = {endpoint.get("uid"): endpoint.get("state") for endpoint in told.endpoints}
    lost = [pod for pod in _ready_pods(seen) if known.get(objects.uid(pod), STARTING) == STARTING]
    if lost:
        names = ", ".join(objects.key(pod) for pod in lost[:5])
        said = f"sends no requests to {len(lost)} pods that are ready ({names})"
        yield _finding(told, Severity.ERROR, said, "router-differs")


def _ready_pods(seen: Seen) -> Iterator[Document]:
    served = {objects.key(server) for server in seen.servers}
    return (pod for pod in seen.pods if objects.server_key(pod) in served and not podstate.unready_reason(pod))


def _ghosts(told: Router, seen: Seen) -> Findings:
    """Endpoints of this router whose pod is not in the cluster; those of fixed addresses have none."""
    here, scope = {objects.uid(pod) for pod in seen.pods}, seen.watched()
    ghosts = [
        endpoint
        for endpoint in told.endpoints
        if endpoint.get("uid") not in here and not _is_fixed(endpoint) and _in_scope(endpoint, scope)
    ]
    if ghosts:
        names = ", ".join(str(endpoint.get("name")) for endpoint in ghosts[:5])
        said = f"still counts {len(ghosts)} endpoints whose pods are gone ({names})"
        yield _finding(told, Severity.WARNING, said, "router-differs")


def _is_fixed(endpoint: Mapping[str, Any]) -> bool:
    return str(endpoint.get("uid")).startswith(f"{endpoint.get('server')}/")


def _in_scope(endpoint: Mapping[str, Any], scope: Sequence[str]) -> bool:
    return not scope or str(endpoint.get("server")).partition("/")[0] in scope
