"""`tailrace crds`: the resource definitions as YAML."""

import typer


def crds() -> None:
    """Print the CustomResourceDefinitions as YAML, for `kubectl apply --server-side -f -`.

    Exit codes: 0 printed, 2 for a wrong option.
    """
    from tailrace.api.crd import crd_yaml  # noqa: PLC0415  (models take time to load, other commands do not need them)

    typer.echo(crd_yaml(), nl=False)
