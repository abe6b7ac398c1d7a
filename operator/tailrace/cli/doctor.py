"""`tailrace doctor`: what is wrong with an installation, and what mends it."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tailrace.kube.doctor.findings import Finding
    from tailrace.kube.doctor.routers import Router
    from tailrace.kube.doctor.seen import Look, Seen

TIMEOUT_SECONDS = 10


def doctor(
    *,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", envvar="TAILRACE_NAMESPACE", help="Where Tailrace is installed.")
    ] = "tailrace-system",
    name: Annotated[str, typer.Option(help="Name of its Deployment; its Services begin with it.")] = "tailrace",
    service_account: Annotated[
        str | None,
        typer.Option(
            metavar="[NAMESPACE/]NAME", help="Whose rights to check.", show_default="the Deployment's, else --name"
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Look at InferenceServers and pods of this namespace only; repeatable."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Also say whether requests for this model are served.")] = None,
    admin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TAILRACE_ADMIN", help="Also ask the router at this admin port (http://host:9090); repeatable."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="TAILRACE_TOKEN", help="Bearer token, where reads of the admin port are closed."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", help="How to reach the cluster. Default: as kubectl does.")
    ] = None,
) -> None:
    """Check an installation and say what to mend, with the command for it. It changes nothing.

    Looks at the API server, the definition, the operator's rights, Deployment, Services, Lease and webhook, and at
    every InferenceServer, its pods and budgets. What each finding means is in docs/troubleshooting.md.

    Exit codes: 0 all is well, 1 there is something to mend, 2 the cluster or a router could not be reached.
    """
    from tailrace.kube.doctor.examination import examine  # noqa: PLC0415 - the command line starts fast
    from tailrace.kube.doctor.findings import all_well  # noqa: PLC0415
    from tailrace.kube.doctor.seen import Look  # noqa: PLC0415

    seen = _see(kubeconfig, Look(namespace, name, service_account, tuple(only or ()), model))
    routers = [_ask(url, token) for url in admin or ()]
    findings = examine(seen, routers)
    _print_json(findings) if as_json else _print(findings)
    unreachable = any(router.error for router in routers)
    raise typer.Exit(2 if unreachable else 0 if all_well(findings) else 1)


def _see(kubeconfig: Path | None, look: Look) -> Seen:
    from tailrace.kube.chores import Chores, UnreachableError  # noqa: PLC0415

    try:
        return asyncio.run(Chores(kubeconfig).see(look))
    except UnreachableError as error:
        advice = "does `kubectl get namespaces` work? name the cluster with --kubeconfig"
        typer.echo(f"cannot reach the cluster: {error}; {advice}", err=True)
        raise typer.Exit(2) from error


def _ask(admin: str, token: str | None) -> Router:
    from tailrace.kube.doctor.routers import Router  # noqa: PLC0415

    url = (admin if "://" in admin else f"http://{admin}").rstrip("/")
    try:
        health = _get(f"{url}/readyz?verbose", token) + _get(f"{url}/livez?verbose", token)
        endpoints = json.loads(_get(f"{url}/endpoints", token))["endpoints"]
        return Router(url, health, _get(f"{url}/metrics", token), endpoints)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Router(url, error=str(error) or type(error).__name__)


def _get(url: str, token: str | None) -> str:
    """Return the answer's text; 503 is an answer of the health checks."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the user's own address
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code != 503 or "z?verbose" not in url:
            raise
        return error.read().decode()


def _print_json(findings: Sequence[Finding]) -> None:
    from tailrace.kube.doctor.findings import all_well  # noqa: PLC0415

    document = {"well": all_well(findings), "findings": [finding.view() for finding in findings]}
    typer.echo(json.dumps(document, indent=2))


def _print(findings: Sequence[Finding]) -> None:
    from tailrace.kube.doctor.findings import PAGE, Severity  # noqa: PLC0415

    for finding in findings:
        typer.echo(f"{finding.severity.value.upper():8}{finding.check}: {_plain(finding.message)}")
        if finding.severity is Severity.OK:
            continue
        if finding.advice:
            typer.echo(f"        {_plain(finding.advice)}")
        for command in finding.commands:
            typer.echo(f"          {_plain(command)}")
        if finding.anchor:
            typer.echo(f"        see {PAGE}#{finding.anchor}")
    count = Counter(finding.severity for finding in findings)
    typer.echo(f"{count[Severity.ERROR]} errors, {count[Severity.WARNING]} warnings, {count[Severity.OK]} well")


def _plain(text: str) -> str:
    """Return the text on one line without what a terminal might act on: parts of it come from the cluster."""
    return "".join(char if char.isprintable() else " " for char in text)
