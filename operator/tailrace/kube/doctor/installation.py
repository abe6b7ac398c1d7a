"""Is the operator installed, does it run, and is it reached? Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.doctor.findings import Finding, Findings, Severity, well
from tailrace.kube.doctor.seen import Seen, helm_release, lease_name
from tailrace.settings import Settings

OLDEST: Final = (1, 33)
MANIFESTS: Final = "kubectl apply -k manifests/base"
CLOCK_SECONDS: Final = 5.0
"""How far this machine's clock may be from the one that wrote the Lease."""

_SERVICE: Final = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\..+)?")


def api_server(seen: Seen) -> Findings:
    """Yield whether the API server is new enough: native sidecars must be stable."""
    told = str(seen.version.get("gitVersion", "?"))
    if _version(seen.version) >= OLDEST:
        yield well("api-server", told, f"The API server answers; its version is {told}.")
        return
    yield Finding(
        severity=Severity.ERROR,
        check="api-server",
        about=told,
        message=f"The API server is {told}; Tailrace needs {OLDEST[0]}.{OLDEST[1]} or newer for its drain gate.",
        advice="Upgrade the cluster.",
        commands=("kubectl version",),
        anchor="old-api-server",
    )


def _version(version: Document) -> tuple[int, int]:
    numbers = [re.match(r"\d+", str(version.get(part, ""))) for part in ("major", "minor")]
    major, minor = (int(number[0]) if number else 0 for number in numbers)
    return major, minor


def account(seen: Seen, key: str) -> Findings:
    """Yield whether the service account exists."""
    if seen.account is not None:
        yield well("service-account", key, f"ServiceAccount {key} exists.")
        return
    yield Finding(
        severity=Severity.ERROR,
        check="service-account",
        about=key,
        message=f"ServiceAccount {key} does not exist, so the operator's pods can't be created.",
        advice="Install it; if Tailrace is installed elsewhere say where: --namespace, --name, --service-account.",
        commands=install_commands(seen),
        anchor="missing-service-account",
    )


def install_commands(seen: Seen, plain: str = MANIFESTS) -> tuple[str, ...]:
    """Return what installs everything again: by Helm where Helm did it, else the ``plain`` command."""
    release = helm_release(seen.deployment) or helm_release(seen.account)
    if release is None:
        return (plain,)
    return (f"helm upgrade {release[0]} charts/tailrace -n {release[1]} --reset-then-reuse-values",)


def deployment(seen: Seen) -> Findings:
    """Yield whether the operator runs, and in as many replicas as it should."""
    live = seen.deployment
    if live is None:
        yield problem(
            seen,
            f"Deployment {seen.home} does not exist: no router runs in this cluster.",
            "Install it; if it has another name say so: --namespace, --name.",
            install_commands(seen),
            "missing-deployment",
        )
        return
    wanted = int((live.get("spec") or {}).get("replicas") or 0)
    able = int((live.get("status") or {}).get("availableReplicas") or 0)
    where = f"-n {seen.look.namespace}"
    if wanted == 0:
        scale = f"kubectl {where} scale deployment/{seen.look.name} --replicas=1"
        yield problem(
            seen, f"Deployment {seen.home} is scaled to 0.", "Start a replica.", (scale,), "operator-not-available"
        )
    elif able < wanted:
        yield _unavailable(seen, live, able, wanted)
    else:
        yield well("deployment", seen.home, f"Deployment {seen.home} is available: {able} of {wanted} replicas.")


def _unavailable(seen: Seen, live: Document, able: int, wanted: int) -> Finding:
    conditions = ("ReplicaFailure", "Progressing", "Available")
    told = [found for kind in conditions if (found := objects.condition(live, kind)) and _is_bad(found)]
    why = f": {told[0].get('message')}" if told else ""
    where, selector = f"-n {seen.look.namespace}", _selector(live)
    return problem(
        seen,
        f"Only {able} of {wanted} replicas of Deployment {seen.home} are available{why}",
        "See what keeps its pods from being ready; a missing right or definition is told by the other findings.",
        (f"kubectl {where} describe pods -l {selector}", f"kubectl {where} logs -l {selector} --tail=50"),
        "operator-not-available",
    )


def _is_bad(condition: Document) -> bool:
    bad = "True" if condition.get("type") == "ReplicaFailure" else "False"
    return bool(condition.get("status") == bad and condition.get("message"))


def _selector(live: Document) -> str:
    labels = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in labels.items())


def problem(
    seen: Seen,
    message: str,
    advice: str,
    commands: tuple[str, ...],
    anchor: str,
    *,
    check: str = "deployment",
    severity: Severity = Severity.ERROR,
) -> Finding:
    """Return what is wrong with the installation as a whole."""
    return Finding(
        severity=severity,
        check=check,
        about=seen.home,
        message=message,
        advice=advice,
        commands=commands,
        anchor=anchor,
    )


def services(seen: Seen) -> Findings:
    """Yield whether the three Services are there."""
    wanted = [f"{seen.look.name}-{door}" for door in ("proxy", "routing", "admin")]
    missing = [name for name in wanted if name not in seen.services]
    if not missing:
        yield well("services", seen.home, f"Services {', '.join(wanted)} exist.")
        return
    yield problem(
        seen,
        f"Service {', '.join(missing)} does not exist in {seen.look.namespace}.",
        "Without proxy and routing clients find no router; without admin drain gates find none.",
        install_commands(seen, "kubectl apply -f manifests/base/services.yaml"),
        "missing-service",
        check="services",
    )


def admin_endpoints(seen: Seen) -> Findings:
    """Yield whether the headless admin Service leads to a router, when it exists."""
    name = f"{seen.look.name}-admin"
    if name not in seen.services:
        return
    addresses = seen.addresses(name)
    if addresses:
        yield well("admin-endpoints", name, f"Service {name} leads to the routers; addresses: {addresses}.")
        return
    yield problem(
        seen,
        f"Service {name} leads to no router: drain gates can't say hello and drains rely on the engines' gauges alone.",
        "Compare the Service's selector with the labels of the operator's pods, and see that they run.",
        (
            f"kubectl -n {seen.look.namespace} get service {name} -o wide",
            f"kubectl -n {seen.look.namespace} get pods --show-labels",
        ),
        "admin-service-leads-nowhere",
        check="admin-endpoints",
    )


def gate_routers(seen: Seen) -> Findings:
    """Yield where the installation sends drain gates, and whether that Service is there."""
    if seen.deployment is None:
        return
    said = seen.setting("GATE_ROUTERS") or str(Settings.model_fields["gate_routers"].default)
    lost = [address for address in _split(said) if not _leads_somewhere(address, seen)]
    if not lost:
        yield well("gate-routers", seen.home, f"TAILRACE_GATE_ROUTERS sends drain gates to {said}.")
        return
    yield problem(
        seen,
        f"TAILRACE_GATE_ROUTERS sends drain gates to {', '.join(lost)}, which is no admin Service of "
        f"{seen.look.namespace}.",
        "Name the headless admin Service.",
        set_routers(seen),
        "gateunreachable",
        check="gate-routers",
    )


def set_routers(seen: Seen) -> tuple[str, ...]:
    """Return the commands that send gates to the admin Service from now on."""
    told = f"TAILRACE_GATE_ROUTERS={seen.admin_address()}"
    release = helm_release(seen.deployment)
    if release is not None:
        name, home = release
        return (f"helm upgrade {name} charts/tailrace -n {home} --reset-then-reuse-values --set gate.routers=",)
    return (f"kubectl -n {seen.look.namespace} set env deployment/{seen.look.name} {told}",)


def _split(routers: str) -> Iterator[str]:
    return (part.strip() for part in routers.split(",") if part.strip())


def _leads_somewhere(address: str, seen: Seen) -> bool:
    """Tell what can be told from here: names of Services in the operator's own namespace, and their ports."""
    host, _, port = address.rpartition(":")
    service = _SERVICE.fullmatch(host)
    if service is None:
        return bool(host and port.isdecimal())
    if service[2] != seen.look.namespace:
        return True
    ports = ((seen.services.get(service[1]) or {}).get("spec") or {}).get("ports") or ()
    return port in _numbers(ports)


def _numbers(ports: Iterable[Document]) -> set[str]:
    return {str(port.get("port")) for port in ports}


def lease(seen: Seen) -> Findings:
    """Yield who leads, or that nobody does: then nothing is written."""
    name = lease_name(seen.look, seen.deployment)
    spec = (seen.lease or {}).get("spec") or {}
    holder, age = str(spec.get("holderIdentity") or ""), seen.now - objects.seconds(spec.get("renewTime"))
    if holder and age <= float(spec.get("leaseDurationSeconds") or 0) + CLOCK_SECONDS:
        yield well("lease", name, f"{holder} leads; it renewed the Lease {max(0.0, age):.0f} s ago.")
        return
    yield problem(
        seen,
        f"Nobody leads: Lease {seen.look.namespace}/{name} {_why_nobody(seen, holder, age)}. Nothing is written to the "
        "cluster: pods that have drained stay Terminating and status stands still.",
        "See that a replica runs and may write the Lease.",
        (
            f"kubectl -n {seen.look.namespace} logs deployment/{seen.look.name} --tail=50",
            f"kubectl -n {seen.look.namespace} get lease {name} -o yaml",
        ),
        "nobody-leads",
        check="lease",
    )


def _why_nobody(seen: Seen, holder: str, age: float) -> str:
    if seen.lease is None:
        return "was never made"
    return f"was last renewed {age:.0f} s ago by {holder}" if holder else "was given back"
