"""How long the manifests let a replica stop."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailrace.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def pod_spec() -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "manifests/base/deployment.yaml").read_text())
    found: dict[str, Any] = next(each for each in documents if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    return found


def chart() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "charts/tailrace/values.yaml").read_text())
    return values


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a replica that the manifests start."""
    for name in [name for name in os.environ if name.startswith("TAILRACE_")]:
        monkeypatch.delenv(name)
    for variable in pod_spec()["containers"][0]["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    return Settings()


def test_a_replica_of_the_manifests_takes_requests_until_services_have_heard(settings: Settings) -> None:
    assert settings.settle_seconds == chart()["settings"]["settleSeconds"] == 5


def test_the_grace_period_of_the_manifests_has_room_for_the_whole_stop(settings: Settings) -> None:
    margin = chart()["terminationMarginSeconds"]
    stop = settings.settle_seconds + settings.shutdown_seconds + margin
    assert pod_spec()["terminationGracePeriodSeconds"] == stop
