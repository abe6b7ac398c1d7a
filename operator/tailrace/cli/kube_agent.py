"""`tailrace kube-agent`: the Kubernetes side of `tailrace run`, started by it and speaking to it only."""

from __future__ import annotations

from typing import Annotated

import typer


def kube_agent(
    member: Annotated[
        str, typer.Argument(help="Id of the replica that this is the child of; none: of no replica.")
    ] = "",
    address: Annotated[str, typer.Argument(help="host:port of its admin port.")] = "",
    pod_uid: Annotated[str, typer.Argument(help="Its pod; empty when it is none.")] = "",
) -> None:
    """Watch the cluster and write to it for the parent process, over standard input and output; not for people.

    Settings come from the environment (TAILRACE_...). Exit code 0 after SIGTERM or when the parent has gone.
    """
    from tailrace.kube.main import main  # noqa: PLC0415 - the command line starts fast
    from tailrace.telemetry.logs import set_up  # noqa: PLC0415

    set_up()
    main(member, address, pod_uid)
