"""`tailrace serve`: the same balancer without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _port(variable: str, help_text: str) -> Any:  # noqa: ANN401 - typer's own type
    return typer.Option(envvar=variable, min=0, max=65535, help=help_text)


def serve(
    file: Annotated[
        Path, typer.Option("--file", "-f", help="InferenceServer documents with spec.endpoints; reloaded on change.")
    ],
    host: Annotated[str, typer.Option(envvar="TAILRACE_HOST", help="Address of the three ports.")] = "127.0.0.1",
    proxy_port: Annotated[int, _port("TAILRACE_PROXY_PORT", "OpenAI proxy; 0 takes a free port and logs it.")] = 8080,
    routing_port: Annotated[int, _port("TAILRACE_ROUTING_PORT", "The endpoint that an ingress asks.")] = 8081,
    admin_port: Annotated[int, _port("TAILRACE_ADMIN_PORT", "Health, metrics, drains.")] = 9090,
) -> None:
    """Route to fixed endpoints, without Kubernetes, from the same documents that a cluster takes.

    A bad document is answered with the field and the fix, as `kubectl apply` would; on a reload the last good version
    serves on.

    SIGTERM or Ctrl-C lets what is in flight finish and says what it waits for; a second one ends it at once.

    Exit codes: 0 after SIGTERM or SIGINT, 1 if a port cannot be listened on, 2 for a bad document or setting.
    """
    from tailrace.app import serve_documents  # noqa: PLC0415 - the command line starts fast
    from tailrace.cli.start import load_settings, start  # noqa: PLC0415
    from tailrace.documents import BadDocumentsError  # noqa: PLC0415

    settings = load_settings(host=host, proxy_port=proxy_port, routing_port=routing_port, admin_port=admin_port)
    try:
        start(serve_documents(settings, file))
    except BadDocumentsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
