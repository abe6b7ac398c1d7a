"""The shipped manifests are what a real API server takes, and agree with the settings' defaults."""

import json
from pathlib import Path

import pytest
import yaml
from tests.cluster.agent_fixtures import installed
from tests.cluster.agents import ROOT, SYSTEM
from tests.cluster.clusters import Cluster

from tailrace.settings import Settings

pytestmark = pytest.mark.cluster
__all__ = ["installed"]


def test_the_plain_install_is_accepted_as_a_whole(installed: Cluster) -> None:
    said = installed.kubectl("apply", "--server-side", "--dry-run=server", "-k", str(ROOT / "manifests/base"))
    assert "deployment.apps/tailrace serverside-applied" in said.stdout


@pytest.mark.parametrize("sample", sorted(path.name for path in (ROOT / "manifests/samples").glob("*.yaml")))
def test_every_sample_is_accepted(installed: Cluster, sample: str) -> None:
    installed.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "manifests/samples" / sample), "-n", SYSTEM)


def documents(path: Path) -> list[dict[str, object]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def test_names_and_ports_of_the_manifests_are_the_defaults_of_the_settings() -> None:
    settings = Settings()
    text = json.dumps([documents(path) for path in sorted((ROOT / "manifests/base").glob("*.yaml"))])
    assert f'"mountPath": "{Path(settings.peer_token_file).parent}"' in text
    assert settings.namespace == SYSTEM
    assert settings.gate_routers == f"tailrace-admin.{SYSTEM}.svc:9090"
    for port in (settings.proxy_port, settings.routing_port, settings.admin_port):
        assert f'"containerPort": {port}' in text
