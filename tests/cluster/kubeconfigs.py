"""Kubeconfig files with bearer tokens."""

import base64
from pathlib import Path

import yaml


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    ca_file: Path,
    token: str | None = None,
    token_file: Path | None = None,
    user: str = "admin",
) -> Path:
    """Write a kubeconfig for `server` that presents `token`, or what `token_file` holds; only its owner can read it."""
    authority = base64.b64encode(ca_file.read_bytes()).decode()
    credentials = {"token": token} if token_file is None else {"tokenFile": str(token_file)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tailrace", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "tailrace", "context": {"cluster": "tailrace", "user": user, "namespace": "default"}}],
        "current-context": "tailrace",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path
