"""`tailrace status`: what the InferenceServers of a cluster, or the endpoints of one router, are doing."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

TIMEOUT_SECONDS = 5


def status(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only here. Default: everywhere.")] = None,
    admin: Annotated[
        str | None,
        typer.Option(envvar="TAILRACE_ADMIN", help="Ask this router's admin port (http://host:9090), not a cluster."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", help="How to reach the cluster. Default: as kubectl does.")
    ] = None,
) -> None:
    """Show who serves what, who is ready, what is in flight and what drains.

    Exit codes: 0 shown, 2 the router or the cluster could not be reached.
    """
    rows = _from_router(admin) if admin else _from_cluster(kubeconfig, namespace)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _table(rows)


def _from_router(admin: str) -> list[dict[str, Any]]:
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + "/endpoints"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the user's own address
            rows: list[dict[str, Any]] = json.load(answer)["endpoints"]
    except (OSError, ValueError, KeyError) as error:
        typer.echo(f"cannot read {url}: {error}; is a router's admin port there?", err=True)
        raise typer.Exit(2) from error
    return rows


def _from_cluster(kubeconfig: Path | None, namespace: str | None) -> list[dict[str, Any]]:
    from tailrace.kube.chores import Chores, UnreachableError  # noqa: PLC0415 - the command line starts fast

    try:
        return asyncio.run(Chores(kubeconfig).server_rows(namespace))
    except UnreachableError as error:
        typer.echo(f"cannot read InferenceServers: {error}; without a cluster use --admin http://host:9090", err=True)
        raise typer.Exit(2) from error


def _table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if not rows:
        typer.echo("nothing is served here yet: apply an InferenceServer")
        return
    table = Table(box=None, pad_edge=False)
    columns = list(rows[0])
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(column) is None else str(row[column]) for column in columns))
    Console().print(table)
