"""`tailrace run`: one replica in a cluster."""

from __future__ import annotations


def run() -> None:
    """Serve a cluster's InferenceServers: proxy, routing endpoint and admin port, and the Kubernetes side as a child.

    Settings come from the environment (TAILRACE_PROXY_PORT, TAILRACE_NAMESPACE, TAILRACE_KUBECONFIG, ...); the
    list, with the reason for each default, is in docs/operations.md. SIGTERM stops taking requests, lets those in
    flight finish, and says what it waits for; a second one ends it at once.

    Exit codes: 0 after SIGTERM or SIGINT, 1 if a port cannot be listened on, 2 for a wrong setting.
    """
    from tailrace.app import run_in_cluster  # noqa: PLC0415 - the command line starts fast
    from tailrace.cli.start import load_settings, start  # noqa: PLC0415

    start(run_in_cluster(load_settings()))
