"""`tailrace kube-agent`: the Kubernetes side of `tailrace run`, started by it and speaking to it only."""

from __future__ import annotations


def kube_agent() -> None:
    """Watch the cluster and write to it for the parent process, over standard input and output; not for people.

    Settings come from the environment (TAILRACE_...). Exit code 0 after SIGTERM or when the parent has gone.
    """
    from tailrace.kube.main import main  # noqa: PLC0415 - the command line starts fast
    from tailrace.telemetry.logs import set_up  # noqa: PLC0415

    set_up()
    main()
