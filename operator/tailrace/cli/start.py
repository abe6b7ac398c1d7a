"""How the long-running commands start: settings read, logs set up, the event loop chosen."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import typer
import uvloop
from pydantic import ValidationError

from tailrace import collector
from tailrace.app import ReplicaFailedError
from tailrace.running import CannotListenError
from tailrace.settings import Settings
from tailrace.telemetry.logs import set_up


def load_settings(**flags: object) -> Settings:
    """Return the settings of environment and flags; a wrong one is said by name and ends the program with code 2."""
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        for problem in error.errors():
            name = "TAILRACE_" + "_".join(str(part) for part in problem["loc"]).upper()
            typer.echo(f"{name}: {problem['msg']} (got {problem['input']!r})", err=True)
        raise typer.Exit(2) from error


def start(main: Coroutine[Any, Any, None]) -> None:
    """Run until it ends; an address that cannot be listened on is said and ends the program with code 1."""
    set_up()
    collector.spare_what_is_here()
    try:
        uvloop.run(main)
    except CannotListenError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except ReplicaFailedError as error:
        raise typer.Exit(1) from error
