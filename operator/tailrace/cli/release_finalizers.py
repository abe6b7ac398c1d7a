"""`tailrace release-finalizers`: the way out when no operator is left to release pods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def release_finalizers(
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Only here; repeatable. Default: every namespace.")
    ] = None,
    terminating: Annotated[
        bool, typer.Option("--terminating", help="Only pods that are being deleted: what is stuck now.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be released and change nothing.")] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach the cluster. Default: $KUBECONFIG or ~/.kube/config, as kubectl.")
    ] = None,
) -> None:
    """Take the finalizer tailrace.dev/drain off pods, and touch no other finalizer.

    For when Tailrace was removed before its pods. Stop the operator first. One that runs adopts the pods of
    InferenceServers with a selector anew, with the finalizer, within a second. On pods of a template it puts nothing
    back; those that are made later carry the finalizer again. Requests in flight are not waited for.

    Exit codes: 0 all released (or nothing to do), 1 some could not be, 2 the cluster could not be reached.
    """
    from tailrace.kube.chores import Chores, UnreachableError  # noqa: PLC0415 - the command line starts fast

    try:
        report = asyncio.run(
            Chores(kubeconfig).release_finalizers(tuple(namespace or ()), terminating=terminating, dry_run=dry_run)
        )
    except UnreachableError as error:
        typer.echo(f"cannot reach the cluster: {error}; name it with --kubeconfig", err=True)
        raise typer.Exit(2) from error
    for pod in report.released:
        typer.echo(f"{'would release' if dry_run else 'released'} {pod}")
    for pod, why in report.failed.items():
        typer.echo(f"not released {pod}: {why}", err=True)
    if not report.released and not report.failed:
        typer.echo("nothing to release: no pod holds the finalizer tailrace.dev/drain")
    raise typer.Exit(1 if report.failed else 0)
