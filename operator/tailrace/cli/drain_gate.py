"""`tailrace drain-gate`: the sidecar that holds SIGTERM back from a model server that still answers requests."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from tailrace.engines.families import FAMILIES, family
from tailrace.gate.decision import Limits
from tailrace.gate.settings import GateSettings, parse_routers

TOKEN_FILE = Path("/var/run/secrets/tailrace/token")


def drain_gate(
    *,
    routers: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,...",
            help="Admin ports of the routers. A name that resolves to many is fine: any one replica answers for all.",
        ),
    ],
    listen_host: Annotated[
        str, typer.Option(envvar="POD_IP", help="Address to listen on, where the kubelet calls the hook: the pod's.")
    ],
    pod_uid: Annotated[str, typer.Option(envvar="POD_UID", help="The uid of this pod.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /wait, /healthz and /status.")] = 9397,
    token_file: Annotated[
        Path, typer.Option(help="Projected service-account token (audience tailrace), read anew for each call.")
    ] = TOKEN_FILE,
    timeout_seconds: Annotated[
        float, typer.Option(min=0, help="Drain timeout: the hook is answered after this long at the latest.")
    ] = 600.0,
    engine: Annotated[
        str, typer.Option(help=f"Family of the model server, for its gauges: {', '.join(FAMILIES)}.")
    ] = "vllm",
    engine_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the model server.")] = 8000,
    hello_seconds: Annotated[
        float, typer.Option(min=1, help="Say hello to the routers this often, so that they can tell who has a gate.")
    ] = 60.0,
) -> None:
    """Hold SIGTERM back until the routers say that this pod has no request left.

    Runs in the pod as a native sidecar. The model server's preStop hook calls GET /wait, which starts the drain and
    answers when a router says safe_to_delete, or at the drain timeout. While no router can be reached it waits at
    least 10 seconds, and until the engine's own gauges read idle twice. It never answers early.

    Exit codes: 0 after SIGTERM or SIGINT, 1 if the address cannot be listened on, 2 for a wrong option.
    """
    try:
        settings = GateSettings(
            pod_uid=pod_uid,
            routers=parse_routers(routers),
            listen_host=listen_host,
            port=port,
            token_file=token_file,
            family=family(engine),
            engine_port=engine_port,
            limits=Limits(timeout=timeout_seconds),
            hello_seconds=hello_seconds,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    _serve(settings)


def _serve(settings: GateSettings) -> None:
    from tailrace.gate.server import serve  # noqa: PLC0415 - aiohttp is slow to import, and --help needs none of it

    try:
        asyncio.run(serve(settings))
    except OSError as error:
        typer.echo(f"tailrace drain-gate: cannot listen on {settings.listen_host}:{settings.port}: {error}", err=True)
        raise typer.Exit(1) from None
