"""`tailrace status`: what the InferenceServers of a cluster, or the endpoints of one router, are doing."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import textwrap
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any

import typer

from tailrace.words import counted

TIMEOUT_SECONDS = 5
HEADERS = {
    "gpuMemoryGB": "GPU GB",
    "engineRunning": "RUNNING",
    "engineWaiting": "WAITING",
    "kvUsage": "KV",
    "connectFailures": "NO CONNECT",
}
"""Where the name of a field is too long for its column; any other is spelt in capitals."""
TROUBLES = {"connectFailures"}
"""What is worth a column only where it is not 0."""
GAP = "  "
MESSAGE_WIDTH = 24
"""Columns that the last one gets on a terminal, however narrow that is."""

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
    rows, notes = _from_router(admin, namespace) if admin else (_from_cluster(kubeconfig, namespace), [])
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo("nothing is served here yet: apply an InferenceServer")
    else:
        typer.echo("\n".join([*_table(rows, _terminal_width()), *notes]))


def _from_router(admin: str, namespace: str | None) -> tuple[list[Row], list[str]]:
    """Return the endpoints, and what else is to be said: how many requests wait in which queue."""
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + "/endpoints"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the user's own address
            document = json.load(answer)
        rows = [row for row in document["endpoints"] if _is_in(namespace, row["server"])]
        waiting = [(pool, count) for pool, count in document["waiting"].items() if _is_in(namespace, pool)]
        return rows, [f"waiting for a slot of {shown(pool)}: {counted(count, 'request')}" for pool, count in waiting]
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
        typer.echo(f"cannot read {url}: {error}; is a router's admin port there?", err=True)
        raise typer.Exit(2) from error


def _is_in(namespace: str | None, name: str) -> bool:
    return namespace is None or name.startswith(f"{namespace}/")


def _from_cluster(kubeconfig: Path | None, namespace: str | None) -> list[Row]:
    from tailrace.kube.chores import Chores, MissingDefinitionError, UnreachableError  # noqa: PLC0415 - the command line starts fast

    try:
        return asyncio.run(Chores(kubeconfig).server_rows(namespace))
    except MissingDefinitionError as error:
        typer.echo(f"cannot read InferenceServers: {error}", err=True)
        raise typer.Exit(2) from error
    except UnreachableError as error:
        advice = "does `kubectl get namespaces` work? name the cluster with --kubeconfig"
        other = "without a cluster use --admin http://host:9090"
        typer.echo(f"cannot read InferenceServers: {error}; {advice}; {other}", err=True)
        raise typer.Exit(2) from error


def _table(rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """Yield the lines of a table, one a row; only the last column is folded, to the width of a terminal."""
    columns = [column for column in rows[0] if column != "uid" and any(_worth_showing(row, column) for row in rows)]
    cells = [[HEADERS.get(column, column.upper()) for column in columns]]
    cells += [[_shown(row, column) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    indent = sum(widths) + len(GAP) * len(widths)
    for *first, last in cells:
        start = "".join(cell.ljust(size) + GAP for cell, size in zip(first, widths, strict=True))
        folded = (
            [last] if width is None else textwrap.wrap(last, max(MESSAGE_WIDTH, width - indent), break_on_hyphens=False)
        )
        yield (start + "".join(folded[:1])).rstrip()
        yield from (" " * indent + line for line in folded[1:])


def _terminal_width() -> int | None:
    """Return its columns; None where nobody looks at it, and a line is a row for grep and awk."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _worth_showing(row: Row, column: str) -> bool:
    return bool(row.get(column) if column in TROUBLES else _shown(row, column))


def _shown(row: Row, column: str) -> str:
    """Return a cell: one line, and nothing in it that acts on the terminal."""
    value = row.get(column)
    text = f"{round(value, 4):g}" if isinstance(value, float) else str(value)
    return shown("" if value is None else text)


def shown(text: str) -> str:
    """Return text as one line with nothing in it that acts on the terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
