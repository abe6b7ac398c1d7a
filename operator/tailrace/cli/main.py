"""The root of the command line: which commands there are. Each is a file of its own that imports what it needs late."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import tailrace
from tailrace.cli.crds import crds
from tailrace.cli.doctor import doctor
from tailrace.cli.drain_gate import drain_gate
from tailrace.cli.explain import explain
from tailrace.cli.kube_agent import kube_agent
from tailrace.cli.model_server import model_server
from tailrace.cli.release_finalizers import release_finalizers
from tailrace.cli.run import run
from tailrace.cli.serve import serve
from tailrace.cli.simulate import simulate
from tailrace.cli.status import status

app = typer.Typer(
    name="tailrace",
    no_args_is_help=True,
    add_completion=False,
    help="Load balancer and Kubernetes operator for LLM inference servers: no request is lost when a pod goes away.",
    epilog="Without a cluster: `tailrace model-server` and `tailrace serve -f servers.yaml`. In one: `tailrace run`.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., Any]] = {
    "run": run,
    "serve": serve,
    "status": status,
    "explain": explain,
    "doctor": doctor,
    "model-server": model_server,
    "simulate": simulate,
    "drain-gate": drain_gate,
    "release-finalizers": release_finalizers,
    "crds": crds,
    "kube-agent": kube_agent,
}
HIDDEN = {"kube-agent"}


def _prose(command: Callable[..., Any]) -> str:
    """Return its docstring with a line for each paragraph: a terminal breaks lines by its own width."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(command) or "").split("\n\n"))


for _name, _command in COMMANDS.items():
    app.command(_name, help=_prose(_command), hidden=_name in HIDDEN)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tailrace {tailrace.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Set what all commands share."""
