"""`tailrace status`: what the InferenceServers of a cluster, or the endpoints of one router, are doing."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any

import typer

TIMEOUT_SECONDS = 5
WIDE = 1000
"""Columns of a table that goes into a file or a pipe."""

Row = dict[str, Any]


def status(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only here. Default: everywhere.")] = None,
    admin: Annotated[
        str | None,
        typer.Option(envvar="TAILRACE_ADMIN", help="Ask this router's admin port (http://host:9090), not a cluster."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach the cluster. Default: $KUBECONFIG or ~/.kube/config, as kubectl.")
    ] = None,
) -> None:
    """Show who serves what, who is ready, what is in flight and what drains.

    Exit codes: 0 shown, 2 the router or the cluster could not be reached.
    """
    rows = _from_router(admin, namespace) if admin else _from_cluster(kubeconfig, namespace)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _table(rows)


def _from_router(admin: str, namespace: str | None) -> list[Row]:
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + "/endpoints"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the user's own address
            rows: list[Row] = json.load(answer)["endpoints"]
            return [row for row in rows if namespace is None or row["server"].startswith(f"{namespace}/")]
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        typer.echo(f"cannot read {url}: {error}; is a router's admin port there?", err=True)
        raise typer.Exit(2) from error


def _from_cluster(kubeconfig: Path | None, namespace: str | None) -> list[Row]:
    from tailrace.kube.chores import Chores, UnreachableError  # noqa: PLC0415 - the command line starts fast

    try:
        return asyncio.run(Chores(kubeconfig).server_rows(namespace))
    except UnreachableError as error:
        typer.echo(f"cannot read InferenceServers: {error}; without a cluster use --admin http://host:9090", err=True)
        raise typer.Exit(2) from error


def _table(rows: Sequence[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if not rows:
        typer.echo("nothing is served here yet: apply an InferenceServer")
        return
    table = Table(box=None, pad_edge=False)
    columns = [column for column in rows[0] if column != "uid" and any(_shown(row, column) for row in rows)]
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row, column) for column in columns))
    console = Console()
    # Where nobody looks at it, a line is a row: grep and awk come first.
    console.print(table, width=None if console.is_terminal else WIDE, crop=console.is_terminal)


def _shown(row: Row, column: str) -> str:
    return "" if row.get(column) is None else str(row[column])
